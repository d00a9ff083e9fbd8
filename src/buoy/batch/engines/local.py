"""Pilots as processes of this machine, detached, so that they outlive whoever started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from buoy import machine
from buoy.batch.fit import Fit
from buoy.batch.naming import this_host

__all__ = ["LocalEngine"]

#: What a pilot takes besides the model: two Python processes with their libraries, and pictures read ahead.
_PILOT_BYTES = 700 << 20


class LocalEngine:
    """See the module. Knows its pilots by their command lines, so another coordinator finds the same ones.

    Args:
        out: where the run's results go.
        run: its name.
        pilots: at most; they share the cores.
        log: what the pilots say.
    """

    def __init__(self, out: str, run: str, pilots: int, log: Path) -> None:
        self._out, self._run, self._pilots, self._log = out, run, pilots, log
        self._children: list[subprocess.Popen[bytes]] = []
        self._pids: list[int] = []

    def submit(self, number: int) -> None:
        """Start so many more pilots."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "buoy.batch.work", self._out, self._run, "--share", str(self._pilots)]
        with self._log.open("ab") as log:
            for _ in range(number):
                pilot = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
                )
                self._children.append(pilot)
                self._pids.append(pilot.pid)

    def alive(self) -> int:
        """Pilots of this run on this machine."""
        self._children = [each for each in self._children if each.poll() is None]
        self._pids = [each.pid for each in self._processes()]
        return len(self._pids)

    def fit(self) -> Fit:
        """How many pilots the memory has room for, the person's limit above all."""
        most = max(1, min(self._pilots, machine.memory_bytes() // _PILOT_BYTES))
        return Fit(most, "more do not fit into the memory of this machine")

    def dead(self, names: Sequence[str]) -> list[str]:
        """Pilots of this host whose process is not there any more."""
        return [name for name in names if _is_dead(name)]

    def trouble(self) -> str:
        """Where they say it."""
        return f": see {self._log}"

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if a pilot ends: a short run has nobody to wait for then."""
        if not self._pids or not hasattr(os, "pidfd_open"):
            time.sleep(seconds)
            return
        with ExitStack() as stack:
            ends = select.poll()
            for pid in self._pids:
                try:
                    descriptor = os.pidfd_open(pid)
                except OSError:  # it has ended
                    return
                stack.callback(os.close, descriptor)
                ends.register(descriptor, select.POLLIN)
            ends.poll(seconds * 1000)

    def cancel(self) -> None:
        """Ask all pilots to finish what they have in hand."""
        for process in self._processes():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)

    def _processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if process.info["status"] != psutil.STATUS_ZOMBIE and "buoy.batch.work" in words:
                place = words.index("buoy.batch.work")
                if words[place + 1 : place + 3] == [self._out, self._run]:
                    yield process


def _is_dead(name: str) -> bool:
    """Whether a pilot's name says that it was here, and its process is gone."""
    host, _, rest = name.partition(".")
    parts = rest.split(".")
    if host != this_host() or len(parts) != 3 or not parts[0].isdigit():
        return False
    pid, started = int(parts[0]), int(parts[1])
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or abs(int(process.create_time() * 100) - started) > 1
    except psutil.NoSuchProcess:
        return not os.path.exists(f"/proc/{pid}")
    except psutil.Error:
        return False
