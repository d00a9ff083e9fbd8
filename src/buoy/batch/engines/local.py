"""Pilots as processes of this machine, detached, so that they outlive whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
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

    def submit(self, number: int) -> None:
        """Start so many more pilots."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "buoy.batch.work", self._out, self._run, "--share", str(self._pilots)]
        with self._log.open("ab") as log:
            for _ in range(number):
                self._children.append(
                    subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
                    )
                )

    def alive(self) -> int:
        """Pilots of this run on this machine."""
        self._children = [each for each in self._children if each.poll() is None]
        return sum(1 for _ in self._processes())

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
