"""Batch runs in tests: a source of tiny pictures, the command line, and what is left in the bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from buoy.batch.area import Home
from buoy.batch.engines.local import LocalEngine
from buoy.batch.layout import PLAN
from buoy.batch.ledger import Ledger
from buoy.batch.run import open_ledger
from buoy.batch.tables import read_table
from support.tiny import picture_with_squares, png

__all__ = ["BatchRun", "decode_attempt", "make_source"]

#: Seconds: leases are short, so that nobody waits long for the dead.
LEASE_S = 3.0


def make_source(folder: Path, number: int, *, bad_every: int = 100) -> Path:
    """A folder with so many pictures from three cameras; one in `bad_every` is broken."""
    random = Random(1)
    for count in range(number):
        home = folder / f"cam{count % 3}"
        home.mkdir(parents=True, exist_ok=True)
        cells = [(random.randrange(4), random.randrange(4)) for _ in range(random.randrange(3))]
        data = png(picture_with_squares(*cells))
        if count % bad_every == bad_every - 1:
            data = data[:40]
        (home / f"201101{count % 28 + 1:02d}_{count:06d}.png").write_bytes(data)
    return folder


@dataclass
class BatchRun:
    """One source, one model, one place for results, and the processes that work on it."""

    model: Path
    source: str
    out: str
    env: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name("buoy")), "batch", *words]

    def start(self, *options: str, **env: str) -> subprocess.Popen[str]:
        """The command, in the background."""
        return subprocess.Popen(
            self.command("run", str(self.model), self.source, "--out", self.out, *self.options, *options),
            env=self.environ(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        process = self.start(*options, **env)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def say(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Another command about the run."""
        return subprocess.run(
            self.command(*words), env=self.environ(**env), capture_output=True, text=True, timeout=120, check=False
        )

    def environ(self, **env: str) -> dict[str, str]:
        state = str(self.model.parent / "state")
        return {**os.environ, "BUOY_BATCH_LEASE_S": str(LEASE_S), "XDG_STATE_HOME": state, **self.env, **env}

    @property
    def home(self) -> Home:
        return Home(self.out)

    @property
    def name(self) -> str:
        (name,) = self.home.runs()
        return name

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.home, self.name)

    def plan(self, *bounds: int) -> None:
        """Cut cells as the test wants them, before a coordinator does."""
        assert self.ledger.create(PLAN, {"bounds": list(bounds)}).won

    def pilot(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """A pilot that no coordinator has started."""
        command = [sys.executable, "-m", "buoy.batch.work", self.out, self.name, "--share", "2", *options]
        return subprocess.Popen(command, env=self.environ(**env), stderr=subprocess.DEVNULL)

    def bury(self) -> None:
        """Tell of the pilots that have ended, as the coordinator of this machine would."""
        beats = [each.key.removeprefix("hb/") for each in self.ledger.names("hb/")]
        for name in LocalEngine(self.out, self.name, 1, Path(os.devnull)).dead(beats):
            self.ledger.create(f"gone/{name}", {"by": "the test"})

    def processes(self) -> Iterator[psutil.Process]:
        """Everything that works on it: coordinators, pilots, and the processes with the model."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if self.out in words:
                yield from process.children(recursive=True)
                yield process

    def kill_everything(self) -> int:
        """SIGKILL for each process of it; tells how many there were."""
        found = {process.pid: process for process in self.processes()}
        for process in found.values():
            process.kill()
        psutil.wait_procs(list(found.values()), timeout=30)
        return len(found)

    def wait_until(self, prefix: str, number: int = 1, timeout_s: float = 180.0) -> None:
        """Wait for so many objects of a kind in the ledger."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.home.runs() and len(self.ledger.names(prefix)) >= number:
                return
            time.sleep(0.02)
        raise AssertionError(f"not {number} of {prefix} within {timeout_s} s")

    def objects(self) -> dict[str, bytes]:
        """What is in the ledger."""
        area = self.ledger.area
        return {each.key: area.get(each.key) for each in area.walk()}

    def results(self) -> dict[str, bytes]:
        """The files of the result set."""
        done = self.ledger.read("done.json")
        assert done is not None
        area = self.home.results(done["results"].rpartition("/")[2])
        return {each.key: area.get(each.key) for each in area.walk()}

    def tables(self) -> dict[str, bytes]:
        """The files that must not differ between two runs over the same source."""
        return {name: data for name, data in self.results().items() if name.endswith((".csv", ".parquet"))}

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.results()["report.json"])
        return found


def decode_attempt(data: bytes) -> list[tuple[int, str, bool]]:
    """Row, status, and whether it was given up, of each object in an attempt."""
    table = read_table(data)
    found: dict[int, tuple[str, bool]] = {}
    for row, status, message in zip(*(table[name].to_pylist() for name in ("row", "status", "message")), strict=True):
        gave_up = bool(message) and "workers in a row" in message
        found[row] = ("ok" if status == "ok" or found.get(row, ("",))[0] == "ok" else status, gave_up)
    return [(row, *known) for row, known in found.items()]
