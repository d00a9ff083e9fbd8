"""Logs, bounded: a job's keeps its head and its tail, that of an exposed service the latest."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["RollingLog", "copy_log", "tail"]

#: Of each end of an output that is longer than both together.
KEEP_BYTES = 512 * 1024


def copy_log(source: IO[bytes], path: Path) -> None:
    """Copy a process's output into a file as it comes, until its end.

    What exceeds the head is held back, at most one tail of it, and written at the end. When the file
    cannot be written (a full disk), reading goes on: the process must not stand still for its log.
    """
    with _open(path) as log:
        written = 0
        held: deque[bytes] = deque()
        held_bytes = left_out = 0
        while piece := source.read1(65_536):  # type: ignore[attr-defined]
            if written < KEEP_BYTES:
                _write(log, piece)
                written += len(piece)
                continue
            held.append(piece)
            held_bytes += len(piece)
            while held_bytes - len(held[0]) >= KEEP_BYTES:
                left_out += len(held[0])
                held_bytes -= len(held.popleft())
        if left_out:
            _write(log, f"\n[... {left_out} bytes left out ...]\n".encode())
        _write(log, b"".join(held))


class RollingLog:
    """A log that goes on for ever: the latest part, and the one before it as `<name>.1`."""

    limit_bytes = 1 << 20

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def copy(self, source: IO[bytes]) -> None:
        """Add a process's output as it comes, until its end."""
        with source:
            while piece := source.read1(65_536):  # type: ignore[attr-defined]
                self.write(piece)

    def say(self, text: str) -> None:
        """Add a line of our own."""
        self.write(f"buoy: {text}\n".encode())

    def write(self, piece: bytes) -> None:
        """Add something; what cannot be written (a full disk) is dropped."""
        with self._lock, suppress(OSError):
            if self.path.exists() and self.path.stat().st_size + len(piece) > self.limit_bytes:
                self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            with self.path.open("ab", buffering=0) as log:
                log.write(piece)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("wb", buffering=0)
    except OSError:
        return Path("/dev/null").open("wb", buffering=0)


def _write(log: IO[bytes], piece: bytes) -> None:
    with suppress(OSError):
        log.write(piece)


def tail(path: Path, size_bytes: int = 2000) -> str:
    """The end of a log as text; '' if there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - size_bytes))
            return log.read().decode("utf-8", "replace")
    except OSError:
        return ""
