"""Whole runs with real processes on this machine: killed, stopped, poisoned, and the right table in the end."""

from __future__ import annotations

import csv
import io
import os
import secrets
import signal
import time
from pathlib import Path
from random import Random

import pytest

from batch.checker import faults_of_run
from buoy.batch.failpoint import NAMES
from support.batch import LEASE_S, BatchRun, make_source
from support.tiny import make_model, picture_with_squares, png


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def small(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BatchRun, dict[str, bytes]]:
    """A run over 60 pictures that nobody disturbs, and its tables."""
    folder = tmp_path_factory.mktemp("small")
    run = BatchRun(model, str(make_source(folder / "source", 60, bad_every=20)), str(folder / "out"))
    ended = run.run()
    assert ended.returncode == 3, ended.stderr
    assert faults_of_run(run, 60) == []
    return run, run.tables()


#: How often everything is killed in one run; more for a long night: `BUOY_TEST_KILLS=200`.
KILLS = int(os.environ.get("BUOY_TEST_KILLS", "5"))
#: So many pictures are more than are looked at between two kills.
KILLED_ROWS, KILLED_CELL = 200 * (KILLS + 1), 20


def another(run: BatchRun, out: Path, *options: str, **env: str) -> BatchRun:
    return BatchRun(run.model, run.source, str(out), env, options)


def test_a_table_has_every_object_once_though_everything_was_killed_in_the_middle(model: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 2000)
    undisturbed = BatchRun(model, str(source), str(tmp_path / "undisturbed"))
    assert undisturbed.run().returncode == 3

    run = BatchRun(model, str(source), str(tmp_path / "out"), options=("--workers", "2"))
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, 2000, 125), 2000)
    command = run.start()
    run.wait_until("fin/", 2)
    assert run.kill_everything() >= 3
    command.communicate()
    assert 2 <= len(run.ledger.names("fin/")) < 16
    finished = {each.key for each in run.ledger.names("fin/")}
    claims = {each.key for each in run.ledger.names("claim/")}

    ended = run.run("--json")
    assert ended.returncode == 3, ended.stderr
    assert faults_of_run(run, 2000) == []
    assert run.tables() == undisturbed.tables()
    # Nothing that had its `fin` was claimed again.
    later = {each.key for each in run.ledger.names("claim/")} - claims
    assert not {key for key in later if key.replace("claim/", "fin/").rpartition("-")[0] in finished}
    lines = list(csv.DictReader(io.StringIO(run.results()["results.csv"].decode(), newline="")))
    assert len({line["key"] for line in lines}) == 2000
    failed = [line["key"] for line in csv.DictReader(io.StringIO(run.results()["failures.csv"].decode(), newline=""))]
    assert sorted(failed) == sorted(f"cam{n % 3}/201101{n % 28 + 1:02d}_{n:06d}.png" for n in range(99, 2000, 100))
    counts = run.report()["counts"]
    assert counts == {"failed": 20, "ok": 1980}


@pytest.mark.timeout(200 + 20 * KILLS)
def test_the_bytes_are_the_same_whenever_and_however_often_everything_is_killed(tmp_path: Path) -> None:
    seed = secrets.randbelow(10**6)
    random = Random(seed)
    model = make_model(tmp_path / "models", slow=True)
    source = make_source(tmp_path / "source", KILLED_ROWS)
    undisturbed = BatchRun(model, str(source), str(tmp_path / "undisturbed"), options=("--workers", "2"))
    assert to_its_end(undisturbed) == 3

    run = another(undisturbed, tmp_path / "out", "--workers", "2")
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, KILLED_ROWS + 1, KILLED_CELL))
    for number in range(KILLS):
        kind = ("fin/", "claim/", "att/")[number % 3]
        there = len(run.ledger.names(kind))
        command = run.start()
        run.wait_until(kind, there + random.randint(1, 4))
        time.sleep(random.uniform(0.0, 0.3))
        assert run.kill_everything() >= 3, f"kill {number} of seed {seed}"
        command.communicate()
        assert run.ledger.read("seal.json") is None, f"kill {number} of seed {seed}"
    ended = len(run.ledger.names("fin/"))
    assert 0 < ended < KILLED_ROWS // KILLED_CELL, f"seed {seed}"
    assert to_its_end(run) == 3, f"seed {seed}"
    assert faults_of_run(run, KILLED_ROWS) == [], f"seed {seed}"
    assert run.tables() == undisturbed.tables(), f"seed {seed}"


def to_its_end(run: BatchRun) -> int:
    """The command's exit code, however long it takes."""
    command = run.start()
    command.communicate()
    return command.returncode


def test_a_coordinator_killed_at_each_failpoint_is_followed_by_the_next(
    small: tuple[BatchRun, dict[str, bytes]], tmp_path: Path
) -> None:
    run = another(small[0], tmp_path / "out")
    for name in (each for each in NAMES if each.startswith("coord.")):
        ended = run.run(BUOY_FAILPOINT=name)
        assert ended.returncode == -signal.SIGKILL, f"{name}: {ended.stderr}"
    assert run.run().returncode == 3
    assert faults_of_run(run, 60) == []
    assert run.tables() == small[1]


def test_a_pilot_killed_at_each_failpoint_costs_nothing_but_work(
    small: tuple[BatchRun, dict[str, bytes]], tmp_path: Path
) -> None:
    run = another(small[0], tmp_path / "out")
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, 60, 5), 60)
    for name in (each for each in NAMES if each.startswith("pilot.")):
        assert run.pilot(BUOY_FAILPOINT=name).wait(60) == -signal.SIGKILL, name
        run.bury()
    assert run.run().returncode == 3
    assert faults_of_run(run, 60) == []
    assert run.tables() == small[1]


def test_a_pilot_that_stands_still_for_longer_than_its_lease_has_no_effect_any_more(
    small: tuple[BatchRun, dict[str, bytes]], tmp_path: Path
) -> None:
    run = another(small[0], tmp_path / "out", "--workers", "2")
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, 60, 10), 60)
    zombie = run.pilot(BUOY_FAILPOINT="pilot.attempt:2", BUOY_FAILPOINT_SIGNAL="STOP")
    run.wait_until("fin/", 1)
    try:
        ended = run.run()
        assert ended.returncode == 3, ended.stderr
        sealed = run.objects()
    finally:
        zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(60) == 0
    after = run.objects()
    assert {key: data for key, data in after.items() if key in sealed and not key.startswith("hb/")} == {
        key: data for key, data in sealed.items() if not key.startswith("hb/")
    }
    assert any(key.startswith("att/") for key in after.keys() - sealed.keys())
    assert run.tables() == small[1]


def test_a_signal_ends_a_pilot_soon_and_loses_nothing(small: tuple[BatchRun, dict[str, bytes]], tmp_path: Path) -> None:
    run = another(small[0], tmp_path / "out")
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 60)
    pilot = run.pilot()
    run.wait_until("claim/")
    pilot.terminate()
    assert pilot.wait(20) == 0
    assert run.run().returncode == 3
    assert faults_of_run(run, 60) == []
    assert run.tables() == small[1]
    assert run.report()["wasted_objects"] == 0


@pytest.mark.parametrize(
    ("kind", "says"),
    [("segfault", "SIGSEGV, twice"), ("hang", "longer than 2 s, twice"), ("memory", "took more memory than")],
)
def test_a_picture_that_breaks_its_process_costs_its_own_row_alone(
    model: Path, tmp_path: Path, kind: str, says: str
) -> None:
    source = make_source(tmp_path / "source", 30, bad_every=1000)
    (source / "cam1" / f"poison-{kind}.png").write_bytes(png(picture_with_squares((0, 0))))
    run = BatchRun(
        model, str(source), str(tmp_path / "out"), {"BUOY_POISON": "1", "BUOY_BATCH_CHILD_MIB": "600"},
        ("--item-timeout", "2" if kind == "hang" else "60"),
    )  # fmt: skip
    ended = run.run()
    assert ended.returncode == 3, ended.stderr
    assert faults_of_run(run, 31) == []
    assert run.report()["counts"] == {"failed": 1, "ok": 30}
    (line,) = csv.DictReader(io.StringIO(run.results()["failures.csv"].decode(), newline=""))
    assert line["key"] == f"cam1/poison-{kind}.png"
    assert says in line["message"]


def test_an_object_that_kills_whole_workers_is_given_up_alone(model: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 8, bad_every=1000)
    (source / "cam1" / "poison-pilot.png").write_bytes(png(picture_with_squares((0, 0))))
    run = BatchRun(model, str(source), str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 2, 4, 6, 8, 9)
    run.env["BUOY_POISON"] = "1"
    ended = run.run()
    assert ended.returncode == 3, ended.stderr
    assert faults_of_run(run, 9) == []
    assert run.report()["counts"] == {"failed": 1, "ok": 8}


def test_a_run_is_paused_and_goes_on_and_can_be_cancelled(
    small: tuple[BatchRun, dict[str, bytes]], tmp_path: Path
) -> None:
    run = another(small[0], tmp_path / "out")
    assert run.run("--dry-run").returncode == 0
    place = f"{run.out}/{run.name}"
    assert run.say("pause", place).returncode == 0
    ended = run.run()
    assert ended.returncode == 4
    assert "buoy batch resume" in ended.stderr
    assert run.ledger.names("fin/") == []
    assert run.say("resume", run.out).returncode == 3
    assert run.tables() == small[1]
    assert run.say("report", place).stdout.strip().startswith(place)

    other = another(small[0], tmp_path / "other")
    assert other.run("--dry-run").returncode == 0
    assert other.say("cancel", other.out).returncode == 0
    assert other.run().returncode == 5
    assert "cancelled" in other.say("resume", other.out).stderr


def test_a_run_pauses_when_everything_fails_the_same_way(model: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 450, bad_every=1)
    run = BatchRun(model, str(source), str(tmp_path / "out"))
    ended = run.run()
    assert ended.returncode == 4, ended.stderr
    assert "failed with InputError" in ended.stderr
    assert sum(run.ledger.read(each.key) is not None for each in run.ledger.names("fin/")) == 1
    resumed = run.say("resume", run.out, "--anyway")
    assert resumed.returncode == 3, resumed.stderr
    assert run.report()["counts"] == {"failed": 450}


def test_a_run_pauses_when_the_model_has_changed(small: tuple[BatchRun, dict[str, bytes]], tmp_path: Path) -> None:
    model = make_model(tmp_path)
    run = BatchRun(model, small[0].source, str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    manifest = model / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("score: 0.5", "score: 0.6"))
    assert run.pilot().wait(60) == 1
    told = run.say("status", run.out, "--json")
    assert '"state": "paused"' in told.stdout
    assert "the run is with" in told.stdout


def test_nobody_is_left_when_a_run_is_over(small: tuple[BatchRun, dict[str, bytes]]) -> None:
    deadline = time.monotonic() + 10 * LEASE_S
    while list(small[0].processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(small[0].processes()) == []
