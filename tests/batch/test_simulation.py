"""Thousands of played runs of the real coordinator and pilots. A failure names its seed, which plays it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from batch import simulation
from batch.checker import faults_of
from batch.simulation import Faults, Outcome, encode, play, result_of, trace
from buoy.batch import fin, overview, pilot
from buoy.batch.area import Area
from buoy.batch.coordinator import Coordinator
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Created, Ledger, Record
from buoy.batch.pilot import Ending, Pilot
from buoy.batch.seal import Seal, make_seal
from buoy.batch.slots import Slots
from buoy.batch.supply import Supply, Wanted
from buoy.batch.view import View

ROWS = 10
BOUNDS = (0, 4, 7, 9, 10)
EXPECTED = encode([result_of(row) for row in range(ROWS)])
#: Schedules of each world; more for a long run: `BUOY_SEEDS=100000`.
SEEDS = int(os.environ.get("BUOY_SEEDS", "0"))

NOISE = Faults(refused=0.05, unheard=0.05, late=0.03, twice=0.03, behind=30)
WORLDS = {
    "quiet": (Faults(), 50),
    "noise": (NOISE, 300),
    "kills": (Faults(killed=0.01), 400),
    "kills nobody tells of": (Faults(killed=0.01, tells_dead=False), 300),
    "stalls": (Faults(stalled=0.02), 300),
    "two coordinators": (Faults(coordinators=2, killed=0.005, unheard=0.03), 300),
    "twins": (Faults(twins=True, killed=0.005, behind=20), 200),
    "signals": (Faults(signalled=True, killed=0.003, unheard=0.02), 200),
    "meddled": (Faults(meddled=True, killed=0.003), 150),
    "budgets": (Faults(budget_s=1.5, twins=True, killed=0.003, unheard=0.02), 200),
    "everything": (
        Faults(
            refused=0.04, unheard=0.04, late=0.02, twice=0.02, behind=20, stalled=0.005, killed=0.005, twins=True,
            coordinators=2, tells_dead=False, meddled=True, signalled=True,
        ),
        400,
    ),
}  # fmt: skip


def decode(data: bytes) -> list[tuple[int, str, bool]]:
    return [(row, status, "killer" in lines) for row, status, lines in json.loads(data)]


def seeds_of(name: str, number: int) -> range:
    first = Random(name).randrange(10**6)
    return range(first, first + (SEEDS or number))


def told(outcome: Outcome, seed: int, faults: Faults) -> str:
    return f"seed {seed} of {faults}: {sorted(outcome.objects)}"


@pytest.mark.parametrize("name", WORLDS)
def test_every_run_ends_with_every_row_once(name: str) -> None:
    faults, number = WORLDS[name]
    for seed in seeds_of(name, number):
        try:
            outcome = play(seed, faults, BOUNDS)
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {faults}") from error
        assert faults_of(outcome.objects, ROWS, decode) == [], told(outcome, seed, faults)
        mutable = {key for key in outcome.world.overwritten if not key.startswith("hb/")}
        assert mutable == set(), told(outcome, seed, faults)
        assert set(outcome.results) == {EXPECTED} or has_killer(outcome), told(outcome, seed, faults)
        assert len(set(outcome.results)) == 1, told(outcome, seed, faults)


def has_killer(outcome: Outcome) -> bool:
    """Three kills in a row may hit the same single row, which is then given up; the checker looks at that."""
    return any(b"killer" in result for result in outcome.results)


def test_a_run_without_faults_looks_at_every_row_once() -> None:
    for seed in seeds_of("once", 40):
        outcome = play(seed, Faults(), BOUNDS)
        assert sorted(row for _, row in outcome.world.looked) == list(range(ROWS)), f"seed {seed}"
        assert outcome.results == [EXPECTED], f"seed {seed}"


def test_a_signal_loses_nothing_that_was_looked_at() -> None:
    for seed in seeds_of("signal", 100):
        outcome = play(seed, Faults(signalled=True), BOUNDS)
        assert sorted(row for _, row in outcome.world.looked) == list(range(ROWS)), f"seed {seed}"


def test_a_row_that_kills_everybody_costs_that_row_alone() -> None:
    for seed in seeds_of("poison", 60):
        outcome = play(seed, Faults(poison=5), (0, 8, 10))
        assert faults_of(outcome.objects, ROWS, decode) == [], f"seed {seed}"
        rows = {row: status for row, status, _ in decode(outcome.results[0])}
        assert rows == {row: "failed" if row in (5, 9) else "ok" for row in range(ROWS)}, f"seed {seed}"


#: Faults in which no living pilot is silent for as long as a lease.
NOBODY_TAKEN_FOR_DEAD = {
    "twins": Faults(twins=True),
    "kills": Faults(twins=True, killed=0.01),
    "kills nobody tells of": Faults(twins=True, killed=0.01, tells_dead=False),
    "signals": Faults(twins=True, signalled=True),
    "meddled": Faults(twins=True, meddled=True, signalled=True, killed=0.003),
    "two coordinators": Faults(twins=True, coordinators=2, killed=0.003),
    "budgets": Faults(twins=True, budget_s=1.5),
}


@pytest.mark.parametrize("name", NOBODY_TAKEN_FOR_DEAD)
def test_no_more_pilots_work_at_once_than_are_ordered(name: str) -> None:
    faults, most = NOBODY_TAKEN_FOR_DEAD[name], 0
    for seed in seeds_of(f"slots {name}", 60):
        outcome = play(seed, faults, BOUNDS)
        assert outcome.world.most_at_work <= faults.pilots, told(outcome, seed, faults)
        most = max(most, outcome.world.most_at_work)
    assert most == faults.pilots


def test_nobody_works_without_a_slot_though_the_run_is_resumed_while_it_begins() -> None:
    for seed in seeds_of("resumed", 400):
        faults = Faults(twins=True, meddled=True, stalled=0.03)
        outcome = play(seed, faults, BOUNDS)
        assert outcome.world.slotless == [], told(outcome, seed, faults)


MANY, MANY_BOUNDS = Faults(pilots=50), range(61)


def test_the_first_request_for_pilots_is_a_small_one_however_many_are_ordered() -> None:
    for seed in seeds_of("slow start", 10):
        outcome = play(seed, MANY, MANY_BOUNDS)
        assert outcome.asked[0] <= 4, f"seed {seed}"
        assert sum(outcome.asked) > 4, f"seed {seed}"


def test_pilots_leave_when_their_time_is_over_and_others_go_on_with_nothing_lost() -> None:
    for seed in seeds_of("budget", 60):
        outcome = play(seed, Faults(budget_s=1.0), range(0, 41, 2))
        endings = list(outcome.endings.values())
        assert endings.count(Ending.BUDGET) > 3, f"seed {seed}: {endings}"
        assert sorted(row for _, row in outcome.world.looked) == list(range(40)), f"seed {seed}"


def test_what_the_store_loses_is_done_again_or_the_run_says_that_it_is_damaged() -> None:
    for seed in seeds_of("vanishes", 400):
        outcome = play(seed, Faults(vanishes=0.01), BOUNDS)
        if outcome.damaged:
            continue
        faults = faults_of(outcome.objects, ROWS, decode, lossy=True)
        after_seal = any(key.startswith("att/") for key in outcome.world.vanished)
        assert faults == [] or (after_seal and all("is not what was sealed" in each for each in faults)), f"seed {seed}"
        assert set(outcome.results) == {EXPECTED}, f"seed {seed}"


def test_results_are_right_on_a_store_that_ignores_conditions() -> None:
    for seed in seeds_of("ignored", 300):
        faults = Faults(conditions_ignored=True, killed=0.01, stalled=0.01, unheard=0.03)
        outcome = play(seed, faults, BOUNDS)
        assert faults_of(outcome.objects, ROWS, decode, lossy=True) == [], told(outcome, seed, faults)
        for result in outcome.results:
            assert result == EXPECTED or b"killer" in result, told(outcome, seed, faults)


ASSIGNED = Faults(conditions_ignored=True, assigned=True)
#: Faults in which no process dies or stands still, so that each key keeps its one writer.
ASSIGNED_QUIET = {
    "quiet": (ASSIGNED, 60),
    "noise": (replace(ASSIGNED, refused=0.05, unheard=0.05, late=0.03, twice=0.03, behind=30), 400),
    "signals": (replace(ASSIGNED, signalled=True, unheard=0.02), 200),
}
ASSIGNED_KILLS = {
    "kills": (replace(ASSIGNED, killed=0.01), 400),
    "kills nobody tells of": (replace(ASSIGNED, killed=0.01, tells_dead=False), 300),
    "stalls": (replace(ASSIGNED, stalled=0.02), 300),
    "two coordinators": (replace(ASSIGNED, coordinators=2, killed=0.005, unheard=0.03), 300),
    "everything": (
        replace(
            ASSIGNED, refused=0.04, unheard=0.04, late=0.02, twice=0.02, behind=20, stalled=0.005, killed=0.005,
            twins=True, coordinators=2, tells_dead=False, signalled=True,
        ),
        400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASSIGNED_QUIET)
def test_nothing_is_overwritten_where_work_is_given_though_the_store_would(name: str) -> None:
    faults, number = ASSIGNED_QUIET[name]
    for seed in seeds_of(f"assigned {name}", number):
        outcome = play(seed, faults, BOUNDS)
        assert faults_of(outcome.objects, ROWS, decode) == [], told(outcome, seed, faults)
        assert {key for key in outcome.world.overwritten if not key.startswith("hb/")} == set(), told(
            outcome, seed, faults
        )
        assert outcome.results == [EXPECTED], told(outcome, seed, faults)
        if faults is ASSIGNED:
            assert sorted(row for _, row in outcome.world.looked) == list(range(ROWS)), f"seed {seed}"


@pytest.mark.parametrize("name", ASSIGNED_KILLS)
def test_work_that_is_given_comes_to_its_end_whatever_dies(name: str) -> None:
    faults, number = ASSIGNED_KILLS[name]
    for seed in seeds_of(f"assigned {name}", number):
        try:
            outcome = play(seed, faults, BOUNDS)
        except BaseException as error:
            raise AssertionError(f"seed {seed} of {faults}") from error
        assert faults_of(outcome.objects, ROWS, decode, lossy=True) == [], told(outcome, seed, faults)
        for result in outcome.results:
            assert result == EXPECTED or b"killer" in result, told(outcome, seed, faults)


def test_a_row_that_kills_everybody_costs_that_row_alone_where_work_is_given() -> None:
    for seed in seeds_of("assigned poison", 60):
        outcome = play(seed, replace(ASSIGNED, poison=5), (0, 8, 10))
        assert faults_of(outcome.objects, ROWS, decode) == [], f"seed {seed}"
        rows = {row: status for row, status, _ in decode(outcome.results[0])}
        assert rows == {row: "failed" if row in (5, 9) else "ok" for row in range(ROWS)}, f"seed {seed}"


REPLAY = """
from batch.simulation import play, trace
from batch.test_simulation import ASSIGNED_KILLS, BOUNDS, WORLDS

for worlds in (WORLDS, ASSIGNED_KILLS):
    print(trace(play(7, worlds["everything"][0], BOUNDS)))
"""


def test_a_seed_plays_the_same_run_again_in_whatever_process() -> None:
    traces = []
    for hashes in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(Path(__file__).parents[1])}
        replayed = subprocess.run([sys.executable, "-c", REPLAY], env=env, capture_output=True, text=True)
        assert replayed.returncode == 0, replayed.stderr
        traces.append(replayed.stdout.split())
    here = [trace(play(7, worlds["everything"][0], BOUNDS)) for worlds in (WORLDS, ASSIGNED_KILLS)]
    assert traces == [here, here]


# Broken code must be caught, or the runs above prove nothing


def overwrites_fin(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Area.put
    monkeypatch.setattr(
        Area,
        "put",
        lambda self, key, body, create_only=False: put(self, key, body, create_only=create_only and "fin/" not in key),
    )


def forgets_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Ledger.create

    def always_lost(self: Ledger, key: str, record: Record) -> Created:
        made = create(self, key, record)
        return Created(made.won and not self.patience.retries, made.record)

    monkeypatch.setattr(Ledger, "create", always_lost)


def seals_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def sealed(self: Coordinator) -> Seal | None:
        leaves, _ = self._overview.resolve()
        return make_seal(self._ledger, leaves) if len(leaves) > 1 else None

    monkeypatch.setattr(Coordinator, "_sealed", sealed)


def takes_everybody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseWatch, "expired", lambda self, thing, pilot: True)


def never_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_HALVE_AFTER", 10**9)
    monkeypatch.setattr(pilot, "_GIVE_UP_AFTER", 10**9)


def gives_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_GIVE_UP_AFTER", 1)


def drops_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "split", lambda cell, stop, attempt: [pilot.Part(cell.start, cell.stop, attempt)])


def splits_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fin, overview):
        monkeypatch.setattr(module, "announce", lambda ledger, parts: None)


def gives_a_cell_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "claimed", lambda self, cell, epoch: None)


MUTANTS = [
    (gives_a_cell_twice, Faults(conditions_ignored=True, assigned=True)),
    (overwrites_fin, Faults(stalled=0.02)),
    (forgets_its_nonce, Faults(unheard=0.1)),
    (seals_what_it_has, Faults()),
    (takes_everybody_for_dead, Faults()),
    (never_halves, Faults(poison=5)),
    (gives_up_at_once, Faults(killed=0.04)),
    (drops_what_was_begun, Faults(signalled=True)),
    (splits_without_a_word, Faults(signalled=True)),
]


@pytest.mark.parametrize(("mutate", "faults"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_broken_code_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    monkeypatch.setattr(simulation.World, "most_steps", 6000)
    for seed in seeds_of("mutants", 300):
        try:
            outcome = play(seed, faults, BOUNDS)
        except (AssertionError, simulation.Stuck):
            return
        looked = [row for _, row in outcome.world.looked]
        if (
            faults_of(outcome.objects, ROWS, decode)
            or {key for key in outcome.world.overwritten if not key.startswith("hb/")}
            or (outcome.damaged and not faults.vanishes)
            or set(outcome.results) != {EXPECTED}
            or (faults in (Faults(), Faults(unheard=0.1)) and len(looked) > ROWS)
        ):
            return
    raise AssertionError("nobody noticed")


def needs_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "take", lambda self, number, wait: True)


def takes_slots_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "_free", lambda self, slot, epoch: True)


def takes_one_slot_more(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Slots.take
    monkeypatch.setattr(Slots, "take", lambda self, number, wait: take(self, number + 1, wait))


def works_without_the_slot_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Ledger.create

    def always_won(self: Ledger, key: str, record: Record) -> Created:
        return Created(True, create(self, key, record).record) if key.startswith("slot/") else create(self, key, record)

    monkeypatch.setattr(Ledger, "create", always_won)


@pytest.mark.parametrize(
    "mutate", [needs_no_slot, takes_slots_that_are_held, takes_one_slot_more, works_without_the_slot_it_lost]
)
def test_broken_slots_are_caught(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match="seed"):
        test_no_more_pilots_work_at_once_than_are_ordered("twins")


def test_a_start_that_is_not_slow_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Supply, "wanted", lambda self, useful, fit, alive, begun: Wanted(max(0, min(useful, fit.pilots) - alive), "")
    )
    with pytest.raises(AssertionError, match="seed"):
        test_the_first_request_for_pilots_is_a_small_one_however_many_are_ordered()


def test_pilots_that_never_leave_by_budget_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Pilot._ending

    def goes_on(self: Pilot) -> Ending | None:
        found = ending(self)
        return None if found is Ending.BUDGET else found

    monkeypatch.setattr(Pilot, "_ending", goes_on)
    with pytest.raises(AssertionError, match="seed"):
        test_pilots_leave_when_their_time_is_over_and_others_go_on_with_nothing_lost()
