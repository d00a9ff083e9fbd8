"""What many pilots cost the store: requests that grow with their number, not with its square."""

from __future__ import annotations

from pathlib import Path
from random import Random

import psutil

from batch.simulation import Faults, World
from buoy import machine
from buoy.batch.area import Area
from buoy.batch.engines.local import LocalEngine
from buoy.batch.layout import PLAN, Cell, claim_key
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger
from buoy.batch.slots import Slots
from buoy.batch.view import View
from support.batch import BatchRun, make_source
from support.tiny import make_model

PILOTS = 60


def new_ledger(world: World) -> Ledger:
    return Ledger(Area(world, "run"), world, world.random, parallel=1)  # type: ignore[arg-type]


def test_pilots_that_begin_together_find_slots_without_asking_for_all_of_them() -> None:
    world = World(1, Faults())
    world.most_steps = 10**6
    ledgers = [new_ledger(world) for _ in range(PILOTS)]
    for number, ledger in enumerate(ledgers):
        slots = Slots(ledger, LeaseWatch(world, 90.0), f"pilot-{number}")
        world.start(f"pilot-{number}", lambda slots=slots: slots.take(PILOTS, lambda: False))
    world.run()
    assert [task.result for task in world.tasks] == [True] * PILOTS
    assert sum(ledger.patience.requests for ledger in ledgers) / PILOTS < 20


def test_an_idle_pilot_reads_a_few_claims_at_each_look_and_finds_what_to_take_over() -> None:
    world = World(1, Faults())
    world.most_steps = 10**6
    cells = [Cell(row, row + 1) for row in range(200)]
    lost = cells[137]
    seen: list[tuple[int, int]] = []

    def idle() -> int:
        ledger = new_ledger(world)
        ledger.create(PLAN, {"bounds": list(range(201))})
        for cell in cells:
            ledger.create(claim_key(cell, 1), {"pilot": "dead" if cell == lost else "busy"})
        ledger.create("gone/dead", {"by": "dead"})
        view = View(ledger, LeaseWatch(world, 1e6))
        view.refresh()
        for looks in range(1, 200):
            before = ledger.patience.requests
            picked = view.pick(Random(looks))
            seen.append((looks, ledger.patience.requests - before))
            if picked is not None:
                assert picked == (lost, 2)
                return looks
        return 0

    world.start("idle", idle)
    world.run()
    assert world.tasks[0].result
    assert max(requests for _, requests in seen) <= 8


def test_waiting_for_processes_of_this_machine_ends_when_one_of_them_does(tmp_path: Path) -> None:
    engine = LocalEngine(str(tmp_path / "out"), "no-such-run", 1, tmp_path / "log")
    engine.submit(1)
    engine.wait(100_000.0)
    assert engine.alive() == 0
    assert "no such run" in (tmp_path / "log").read_text()


def test_pilots_of_one_machine_share_its_cores(tmp_path: Path) -> None:
    """Two networks with a thread for every core each take twice the time for a picture."""
    source = make_source(tmp_path / "source", 4)
    run = BatchRun(make_model(tmp_path / "models"), str(source), str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 4)
    pilot = run.pilot()  # one of two
    commands: set[str] = set()
    while pilot.poll() is None:
        words = [words_of(process) for process in run.processes()]
        commands |= {each[-1] for each in words if "buoy.batch.child" in each}
    assert commands == {str(max(1, machine.cores() // 2))}


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
