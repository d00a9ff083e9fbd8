"""A job's log: written while the job runs, bounded, head and tail kept."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["copy_log", "tail"]

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
