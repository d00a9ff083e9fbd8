"""Processes that jobs run in: started in a group of their own, held to limits, ended for certain."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Limits", "base_environment", "end_leftovers", "kill_group", "note", "start"]

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.2


def base_environment() -> dict[str, str]:
    """The environment of every job: little, so that a job here sees what it would see in a container.

    The running interpreter's folder comes first on PATH: `buoy` in a script is this buoy.
    """
    found = {"HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    path = os.environ.get("PATH", os.defpath)
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    functions = os.environ.get("BUOY_FUNCTIONS") or _functions_above(Path.cwd())
    if functions:
        found["BUOY_FUNCTIONS"] = functions
    return found


def _functions_above(folder: Path) -> str:
    return next((str(up / "functions") for up in (folder, *folder.parents) if (up / "functions").is_dir()), "")


def start(
    command: Sequence[str], *, folder: Path, env: Mapping[str, str], stdin: int, stderr: int
) -> subprocess.Popen[bytes]:
    """Start a process as the leader of its own group, and note it for a later start of the gateway."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    note(process.pid, folder)
    return process


def note(pid: int, folder: Path) -> None:
    """Leave word of a process in its folder, for `end_leftovers`."""
    with suppress(OSError, psutil.Error):
        folder.mkdir(exist_ok=True)
        (folder / "pid").write_text(f"{pid} {psutil.Process(pid).create_time()}")


def kill_group(pid: int) -> None:
    """End a process that `start` started, and its children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_leftovers(work: Path) -> int:
    """End what a gateway that was killed left running; returns how many. Their jobs run again.

    A number alone could belong to somebody else by now, so the time of its start has to match.
    """
    ended = 0
    for note in work.glob("*/pid"):
        with suppress(OSError, ValueError, psutil.Error):
            pid, created = note.read_text().split()
            if psutil.Process(int(pid)).create_time() == float(created):
                kill_group(int(pid))
                ended += 1
    return ended


@dataclass
class _Watched:
    pid: int
    memory_bytes: int
    deadline_s: Callable[[], float | None]
    over: Callable[[str], None]
    label: str


class Limits:
    """One thread that looks at all processes and ends those over their memory or their time."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stopping = False
        self._ended = ""
        self._thread = threading.Thread(target=self._loop, name="limits", daemon=True)
        self._thread.start()

    def watch(
        self,
        pid: int,
        memory_bytes: int,
        deadline_s: Callable[[], float | None],
        over: Callable[[str], None],
        label: str = "",
    ) -> None:
        """Hold a process group to its limits until `release`.

        Args:
            pid: the leader of the group.
            memory_bytes: of the process and all its children together (resident); 0 is no limit.
            deadline_s: gives the `time.monotonic()` at which it is late, or `None`.
            over: called once with "memory: ..." or "time", before the group is killed.
            label: for `end`.
        """
        entry = _Watched(pid, memory_bytes, deadline_s, over, label)
        with self._lock:
            if self._ended:
                over(self._ended)
                kill_group(pid)
                return
            self._watched[pid] = entry
        self._some.set()

    def release(self, pid: int) -> None:
        """Stop looking at a process; call it before its number can belong to another one."""
        with self._lock:
            self._watched.pop(pid, None)

    def end(self, label: str, reason: str) -> None:
        """End the process that is watched under this label, if there is one."""
        with self._lock:
            for entry in [entry for entry in self._watched.values() if entry.label == label]:
                del self._watched[entry.pid]
                entry.over(reason)
                kill_group(entry.pid)

    def end_all(self, reason: str) -> None:
        """End every process that is watched, or will be."""
        with self._lock:
            self._ended = reason
            for entry in self._watched.values():
                entry.over(reason)
                kill_group(entry.pid)
            self._watched.clear()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._some.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping:
            self._some.wait()
            time.sleep(_LOOK_EVERY_S)
            with self._lock:
                watched = list(self._watched.values())
                if not watched and not self._stopping:
                    self._some.clear()
            for entry in watched:
                reason = _over(entry)
                if reason:
                    with self._lock:  # not one that has ended, and been released, meanwhile
                        if self._watched.pop(entry.pid, None) is None:
                            continue
                        entry.over(reason)
                        kill_group(entry.pid)


def _over(entry: _Watched) -> str:
    deadline = entry.deadline_s()
    if deadline is not None and time.monotonic() > deadline:
        return "time"
    if entry.memory_bytes:
        used = _resident(entry.pid)
        if used > entry.memory_bytes:
            return f"memory: {used >> 20} MiB"
    return ""


def _resident(pid: int) -> int:
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.Error:
        return 0
    used = 0
    for process in family:
        with suppress(psutil.Error):
            used += process.memory_info().rss
    return used
