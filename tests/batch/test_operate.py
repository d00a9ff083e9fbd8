"""What an operator has: caps, a terminal that closes, progress in every form."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batch.checker import faults_of
from buoy import machine
from buoy.batch.beats import vitals_of
from buoy.batch.control import Control
from buoy.batch.eta import left_s
from support.batch import BatchRun, decode_attempt, make_source
from support.tiny import make_model, picture_with_squares, png

ROWS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def run(model: Path, tmp_path: Path) -> BatchRun:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    return BatchRun(model, str(make_source(tmp_path / "source", ROWS)), str(tmp_path / "out"), env)


def note_of(run: BatchRun) -> dict[str, Any]:
    path = Path(run.env["XDG_STATE_HOME"]) / "buoy" / "runs" / f"{run.name}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture
def slow(tmp_path: Path) -> BatchRun:
    """A run of some seconds: 2,000 pictures, and a network that takes its time."""
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    source = make_source(tmp_path / "source", 2000, bad_every=10000)
    run = BatchRun(make_model(tmp_path, slow=True), str(source), str(tmp_path / "out"), env)
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, 2000, 100), 2000)
    return run


@pytest.mark.parametrize("cap", ["--max-hours", "--max-core-hours"])
def test_a_run_pauses_at_its_cap_and_goes_on_with_more(slow: BatchRun, cap: str) -> None:
    hours = 1.0 / 3600 * (machine.cores() if cap == "--max-core-hours" else 1)
    ended = slow.run(cap, str(hours))
    assert ended.returncode == 4, ended.stderr
    assert "that it may take" in ended.stderr
    assert "of 2,000 objects are left" in ended.stderr
    assert f"{cap} N" in ended.stderr
    note = note_of(slow)
    assert note["state"] == "paused"
    assert note["done"] < 2000
    again = slow.say("resume", slow.out)
    assert again.returncode == 4, again.stderr  # what is spent stays spent, whoever coordinates
    more = slow.say("resume", slow.out, cap, "1")
    assert more.returncode == 0, more.stderr
    assert faults_of(slow.objects(), 2000, decode_attempt) == []
    assert slow.report()["counts"] == {"ok": 2000}
    assert slow.report()["wasted_objects"] == 0


def test_a_cap_holds_without_a_coordinator(slow: BatchRun) -> None:
    Control(slow.ledger).give("running", by="the test", max_core_hours=0.5 / 3600)
    assert slow.pilot().wait(60) == 0
    order = Control(slow.ledger).look()
    assert order.state == "paused"
    assert "core hours that it may take" in order.reason
    assert len(slow.ledger.names("fin/")) < 20


def test_a_run_goes_on_when_its_terminal_is_closed(run: BatchRun) -> None:
    (Path(run.source) / "cam1" / "poison-hang.png").write_bytes(png(picture_with_squares((0, 0))))
    command = run.command("run", str(run.model), run.source, "--out", run.out, "--item-timeout", "2")
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@"; :', "sh", *command],
        stdin=theirs, stdout=theirs, stderr=theirs, env=run.environ(BUOY_POISON="1", TERM="xterm"),
        start_new_session=True, preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    deadline = time.monotonic() + 60
    while not (run.home.runs() and run.ledger.names("claim/")):
        assert time.monotonic() < deadline
        _read(ours)
        time.sleep(0.02)
    assert run.ledger.read("done.json") is None
    os.close(ours)
    assert shell.wait(60) == -signal.SIGHUP
    assert any("--out" in (process.cmdline() or []) for process in run.processes())  # the coordinator lives

    watched = run.say("watch", run.out, "--json")
    assert watched.returncode == 3, watched.stderr
    assert faults_of(run.objects(), ROWS + 1, decode_attempt) == []
    assert run.report()["counts"] == {"failed": 1, "ok": ROWS}
    deadline = time.monotonic() + 60
    while list(run.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.run("--item-timeout", "2").returncode == 3  # the same command shows what came out
    log = (Path(run.env["XDG_STATE_HOME"]) / "buoy" / f"{run.name}.log").read_text()
    assert "60 ok" in log
    assert "Traceback" not in log
    assert note_of(run)["state"] == "done"


def _take_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may ignore it, as nohup does
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read(terminal: int) -> None:
    try:
        os.read(terminal, 1 << 16)
    except BlockingIOError:
        return


def test_status_tells_each_metric_to_prometheus_and_each_fact_as_json(run: BatchRun) -> None:
    assert run.run().returncode == 0
    last = json.loads(run.say("status", run.out, "--json").stdout.splitlines()[0])["progress"]
    assert last["done"] == ROWS
    assert 0 < last["efficiency"] <= 1
    assert last["wasted_percent"] == 0
    text = run.say("status", run.out, "--prometheus").stdout
    found = {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "run")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["buoy_batch_objects",] == ROWS
    assert found["buoy_batch_objects_done", "ok"] == ROWS
    assert found["buoy_batch_state", "done"] == 1
    assert found["buoy_batch_state", "running"] == 0
    assert found["buoy_batch_objects_looked_at",] == ROWS
    assert found["buoy_batch_objects_wasted",] == 0
    assert found["buoy_batch_core_seconds",] > 0
    assert all(name[0].startswith("buoy_batch_") for name in found)
    assert all(
        sample.labels["run"] == run.name for family in text_string_to_metric_families(text) for sample in family.samples
    )


def test_hours_are_those_with_a_worker_whatever_their_clocks_say() -> None:
    def beat(at: float, age_s: float, cores: float = 1.0) -> dict[str, Any]:
        return {
            "at": at,
            "age_s": age_s,
            "cores": cores,
            "done": 1,
            "wasted": 0,
            "requests": 1,
            "causes": {"SlowDown": 2},
        }

    vitals = vitals_of([beat(100, 50, 2), beat(120, 50), beat(300, 100), beat(1e6, 10)])
    assert vitals.elapsed_s == 70 + 100 + 10
    assert vitals.paid_s == 210
    assert vitals.core_s == 260
    assert vitals.retries == {"SlowDown": 8}


def test_the_time_that_is_left_lies_in_its_span_four_times_of_five() -> None:
    random, inside = Random(5), 0
    for _ in range(200):
        cells = [(100, 100 * random.lognormvariate(-1.5, 0.5)) for _ in range(100)]
        known, rest = cells[:20], cells[20:]
        span = left_s(known, 8000, 4)
        assert span is not None
        inside += span[0] <= sum(seconds for _, seconds in rest) / 4 <= span[1]
    assert inside >= 160
