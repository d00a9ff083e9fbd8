"""Ends that come in the middle: of a worker's time, by a signal, by an order, of the model, of a coordinator."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from csv import DictReader
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest

from batch.checker import faults_of_run
from buoy.batch.fin import Part, read_parts
from support.batch import BatchRun, make_source
from support.gateway import until
from support.tiny import make_model, picture_with_squares, png

#: Of the slow runs, and of the quick ones.
ROWS, FEW = 2000, 60
CELLS = range(0, ROWS + 1, ROWS // 20)


@pytest.fixture(scope="module", autouse=True)
def two_cores() -> Iterator[None]:
    """What is slow is slow everywhere, so that what happens to it happens in the middle."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:2])
    yield
    os.sched_setaffinity(0, allowed)


class Scene:
    """Pictures, a network to look at them, and the tables that every run over them must have."""

    def __init__(self, folder: Path, number: int, *, slow: bool) -> None:
        self.slow, self.number = slow, number
        self.source = make_source(folder / "source", number, bad_every=10_000)
        undisturbed = self.run(folder)
        ended = undisturbed.run()
        assert ended.returncode == 0, ended.stderr
        self.tables = undisturbed.tables()
        self.assert_whole(undisturbed)

    def run(self, folder: Path, *options: str) -> BatchRun:
        """A run of its own, with a model of its own that is the same."""
        model = make_model(folder / "model", slow=self.slow)
        return BatchRun(model, str(self.source), str(folder / "out"), options=options)

    def begun(self, folder: Path, *bounds: int, options: tuple[str, ...] = ()) -> BatchRun:
        """A run whose cells are cut, and that nobody works on."""
        run = self.run(folder, *options)
        assert run.run("--dry-run").returncode == 0
        run.plan(*bounds)
        return run

    def assert_whole(self, run: BatchRun) -> None:
        assert faults_of_run(run, self.number) == []
        assert run.tables() == self.tables


@pytest.fixture(scope="module")
def slow(two_cores: None, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("slow"), ROWS, slow=True)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("quick"), FEW, slow=False)


def keys(run: BatchRun, prefix: str) -> set[str]:
    return {each.key.removeprefix(prefix) for each in run.ledger.names(prefix)}


def beats(run: BatchRun) -> list[dict[str, Any]]:
    """What each pilot said last."""
    return [beat for beat in run.ledger.read_many([f"hb/{name}" for name in keys(run, "hb/")]) if beat is not None]


def in_hand(run: BatchRun, least: int) -> Callable[[], list[dict[str, Any]]]:
    """The pilots that have so many objects of their cell done."""
    return lambda: [beat for beat in beats(run) if beat["doing"].get("done", 0) >= least]


def parts_of(run: BatchRun) -> list[list[Part]]:
    """How the cells ended, by their rows."""
    ends = run.ledger.read_many([f"fin/{cell}" for cell in sorted(keys(run, "fin/"))])
    return [read_parts(end) for end in ends if end is not None]


def workers(run: BatchRun) -> list[psutil.Process]:
    """Pilots and the processes with their models, which outlive a pilot that forgets them; not the commands."""

    def works(words: list[str]) -> bool:
        return {"buoy.batch.work", run.out} <= set(words) or {"buoy.batch.child", str(run.model)} <= set(words)

    return [each for each in psutil.process_iter(["cmdline"]) if works(each.info["cmdline"] or [])]


@contextmanager
def ending(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    """Nothing that a test has started outlives it, not even if it stands still."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def told(command: subprocess.Popen[str]) -> str:
    """All that a command has said by its end."""
    return "".join(command.communicate(timeout=120))


def test_a_pilot_whose_time_is_over_leaves_after_a_cell_and_wastes_nothing(slow: Scene, tmp_path: Path) -> None:
    run = slow.begun(tmp_path, *CELLS)
    assert run.pilot("--budget", "2.5").wait(60) == 0
    (name,) = keys(run, "hb/")
    (beat,) = beats(run)
    gone = run.ledger.read(f"gone/{name}")
    assert gone is not None
    assert gone["by"] == name
    ended = parts_of(run)
    assert 1 <= len(ended) < len(CELLS) - 1
    assert all(len(parts) == 1 for parts in ended)
    assert len(keys(run, "claim/")) == len(ended)
    assert (beat["done"], beat["wasted"]) == (len(ended) * ROWS // 20, 0)
    assert run.run().returncode == 0
    slow.assert_whole(run)
    assert run.report()["wasted_objects"] == 0


def test_a_signal_in_the_middle_of_a_cell_keeps_what_was_done_of_it(slow: Scene, tmp_path: Path) -> None:
    run = slow.begun(tmp_path, 0, ROWS)
    pilot = run.pilot()
    with ending(pilot):
        until(in_hand(run, 5))
        pilot.terminate()
        assert pilot.wait(20) == 0
    ((first, second),) = parts_of(run)
    assert first.attempt is not None
    assert 5 <= sum(first.attempt.counts.values()) == first.stop < ROWS
    assert second == Part(first.stop, ROWS)
    (beat,) = beats(run)
    assert beat["wasted"] <= 1

    # Who looks at a picture of the first part again does not find it.
    pictures = sorted(slow.source.rglob("*.png"))[: first.stop]
    aside = [(tmp_path / f"{count}.png", picture) for count, picture in enumerate(pictures)]
    for there, here in aside:
        here.rename(there)
    try:
        assert run.run().returncode == 0
    finally:
        for there, here in aside:
            there.rename(here)
    slow.assert_whole(run)


@pytest.mark.slow
def test_a_signal_ends_a_pilot_whose_picture_hangs(tmp_path: Path) -> None:
    """Longer than ten seconds: a picture in hand is given twelve."""
    source = make_source(tmp_path / "source", FEW, bad_every=10_000)
    hangs = source / "cam1" / "poison-hang.png"
    hangs.write_bytes(png(picture_with_squares((0, 0))))
    run = BatchRun(make_model(tmp_path), str(source), str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    run.plan(0, FEW + 1)
    place = sorted(source.rglob("*.png")).index(hangs)
    pilot = run.pilot("--share", "1", BUOY_POISON="1")
    with ending(pilot):
        until(in_hand(run, place))
        pilot.terminate()
        assert pilot.wait(20) == 0
        assert workers(run) == []
    ((first, second),) = parts_of(run)
    assert first.attempt is not None
    assert (first.stop, second) == (place, Part(place, FEW + 1))
    assert run.run().returncode == 0  # without the poison it is a picture like any other
    assert faults_of_run(run, FEW + 1) == []
    assert run.report()["counts"] == {"ok": FEW + 1}


def test_nobody_works_on_a_run_that_was_cancelled(slow: Scene, tmp_path: Path) -> None:
    run = slow.begun(tmp_path, *CELLS, options=("--workers", "2"))
    command = run.start()
    with ending(command):
        run.wait_until("fin/", 2)
        busy = workers(run)
        assert len(busy) >= 2
        assert run.say("cancel", run.out).returncode == 0
        claims = keys(run, "claim/")
        _, alive = psutil.wait_procs(busy, timeout=30)
        assert alive == []
        assert "cancelled" in told(command)
        assert command.returncode == 5
    assert workers(run) == []
    assert run.pilot().wait(60) == 0
    assert run.run().returncode == 5
    assert keys(run, "claim/") == claims
    assert len(keys(run, "fin/")) < len(CELLS) - 1
    assert run.ledger.read("seal.json") is None


def next_beat(run: BatchRun, last: dict[str, Any]) -> dict[str, Any]:
    """What the only pilot says after that."""
    return until(lambda: next((beat for beat in beats(run) if beat["sequence"] > last["sequence"]), {}))


def test_what_is_in_hand_when_a_run_pauses_is_kept(slow: Scene, tmp_path: Path) -> None:
    run = slow.begun(tmp_path, 0, ROWS)
    command = run.start()
    with ending(command):
        (beat,) = until(in_hand(run, 5))
        (child,) = (each for each in workers(run) if "buoy.batch.child" in each.cmdline())
        (pilot,) = (each for each in workers(run) if each != child)
        # It has pictures in hand, and is held up until the order has come to the pilot.
        child.suspend()
        beat = next_beat(run, next_beat(run, beat))
        assert run.say("pause", run.out).returncode == 0
        assert "buoy batch resume" in told(command)
        assert command.returncode == 4
        next_beat(run, next_beat(run, beat))
        child.resume()
        _, alive = psutil.wait_procs([pilot, child], timeout=30)
        assert alive == []
    ((first, second),) = parts_of(run)
    assert first.attempt is not None
    assert beat["done"] < sum(first.attempt.counts.values()) == first.stop < ROWS
    assert second == Part(first.stop, ROWS)
    assert run.say("resume", run.out).returncode == 0
    slow.assert_whole(run)
    assert run.report()["wasted_objects"] == 0


def is_still(process: subprocess.Popen[str]) -> bool:
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


def assert_without_effect(scene: Scene, run: BatchRun, first: subprocess.Popen[str]) -> None:
    """A coordinator stands still; the next one ends the run, and then the first one goes on."""
    ended = run.run()
    assert ended.returncode == 0, ended.stderr
    scene.assert_whole(run)
    before, results = run.objects(), run.results()
    assert is_still(first)
    first.send_signal(signal.SIGCONT)
    said = told(first)
    assert first.returncode == 0, said
    assert "another coordinator took over" in said or f"{scene.number:,} ok" in said
    after = run.objects()
    assert {name: after[name] for name in ("seal.json", "done.json")} == {
        name: before[name] for name in ("seal.json", "done.json")
    }
    assert run.results() == results


def test_a_coordinator_that_was_stopped_has_no_effect_any_more(slow: Scene, tmp_path: Path) -> None:
    run = slow.begun(tmp_path, *CELLS, options=("--workers", "2"))
    first = run.start()
    with ending(first):
        run.wait_until("fin/", 2)
        first.send_signal(signal.SIGSTOP)
        until(lambda: is_still(first))
        assert run.ledger.read("seal.json") is None
        assert_without_effect(slow, run, first)


@pytest.mark.parametrize("place", ["coord.epoch", "coord.complete", "coord.seal", "coord.merge", "coord.done"])
def test_a_coordinator_may_stand_still_at_any_step_while_another_ends_the_run(
    quick: Scene, tmp_path: Path, place: str
) -> None:
    run = quick.run(tmp_path)
    first = run.start(BUOY_FAILPOINT=place, BUOY_FAILPOINT_SIGNAL="STOP")
    with ending(first):
        until(lambda: is_still(first))
        assert_without_effect(quick, run, first)


def test_two_commands_at_once_make_one_table(quick: Scene, tmp_path: Path) -> None:
    for count in range(3):
        run = quick.run(tmp_path / str(count), "--workers", "2")
        commands = [run.start(), run.start()]
        with ending(*commands):
            said = [told(command) for command in commands]
            assert [command.returncode for command in commands] == [0, 0], said
        quick.assert_whole(run)


def begun_and_killed(scene: Scene, folder: Path) -> BatchRun:
    """A run of which three of twelve cells are done."""
    run = scene.begun(folder, *range(0, FEW + 1, 5))
    assert run.pilot(BUOY_FAILPOINT="pilot.committed:3").wait(60) == -signal.SIGKILL
    run.bury()
    assert len(keys(run, "fin/")) == 3
    return run


def test_a_run_whose_model_is_gone_says_so_and_goes_on_when_it_is_back(quick: Scene, tmp_path: Path) -> None:
    run = begun_and_killed(quick, tmp_path)
    aside = run.model.rename(tmp_path / "aside")
    ended = run.run()
    assert ended.returncode not in (0, 3)
    assert f"{run.model}/manifest.yaml: no such file" in ended.stderr
    resumed = run.say("resume", run.out)
    assert resumed.returncode == 4, resumed.stderr
    assert f"paused: {run.model} is not there" in resumed.stderr
    assert len(keys(run, "fin/")) == 3
    aside.rename(run.model)
    assert run.say("resume", run.out).returncode == 0
    quick.assert_whole(run)


def test_a_run_whose_weights_are_damaged_says_so_and_goes_on_when_they_are_whole(quick: Scene, tmp_path: Path) -> None:
    run = begun_and_killed(quick, tmp_path)
    weights = run.model / "tiny.onnx"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100] + bytes(each ^ 0xFF for each in whole[100:110]) + whole[110:])
    ended = run.run()
    assert ended.returncode == 4, ended.stderr
    assert "the model cannot be loaded" in ended.stderr
    assert f"{weights}: the sha256 is" in ended.stderr
    assert len(keys(run, "fin/")) == 3
    weights.write_bytes(whole)
    assert run.say("resume", run.out).returncode == 0
    quick.assert_whole(run)


def test_a_picture_in_a_zip_that_breaks_its_process_costs_its_own_row_alone(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 6, bad_every=10_000)
    names = ["a.png", "b.png", "poison-segfault.png", "y.png", "z.png"]
    with zipfile.ZipFile(source / "cam1" / "dive.zip", "w") as dive:
        for name in names:
            dive.writestr(name, png(picture_with_squares((1, 1))))
    run = BatchRun(make_model(tmp_path), str(source), str(tmp_path / "out"))
    ended = run.run(BUOY_POISON="1")
    assert ended.returncode == 0, ended.stderr  # the zip has results
    assert faults_of_run(run, 7) == []
    assert run.report()["counts"] == {"ok": 7}
    lines = [line for line in lines_of(run, "results.csv") if line["key"] == "cam1/dive.zip"]
    bad = "poison-segfault.png"
    assert [line["item"] for line in lines] == names
    assert [(line["status"], line["label"]) for line in lines if line["item"] != bad] == [("ok", "bright")] * 4
    (failed,) = lines_of(run, "failures.csv")
    assert (failed["key"], failed["item"], failed["status"]) == ("cam1/dive.zip", bad, "failed")
    assert "SIGSEGV, twice" in failed["message"]


def lines_of(run: BatchRun, table: str) -> list[dict[str, str]]:
    return list(DictReader(StringIO(run.results()[table].decode(), newline="")))


def test_a_pilot_loads_the_model_once_for_all_its_cells(quick: Scene, tmp_path: Path) -> None:
    run = quick.begun(tmp_path, *range(0, FEW + 1, 5))
    pilot = run.pilot()
    children = set[int]()
    with ending(pilot):
        # Python takes longer to start in a child than passes between two looks, so none is missed.
        while pilot.poll() is None:
            with suppress(psutil.Error):
                children.update(each.pid for each in psutil.Process(pilot.pid).children(recursive=True))
            time.sleep(0.01)
    assert len(keys(run, "fin/")) == 12
    assert len(keys(run, "hb/")) == 1
    assert len(children) == 1
    assert run.run().returncode == 0
    quick.assert_whole(run)
