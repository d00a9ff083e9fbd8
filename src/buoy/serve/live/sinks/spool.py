"""Records on their way to the store: appended to files on the local disk, a file for each part of an hour.

    FOLDER/2026-11-25_14-0312-9f2c41aa.jsonl    the part that begins at 14:03:12 UTC, JSON lines

A part is being written as long as somebody holds its lock (flock), which the kernel takes away from a process that
dies. So whoever gets the lock has a part that nobody will add to: it can be sent under its own name, which no other
part ever has, and then be removed. After a crash at any moment nothing is lost and nothing is written twice; only
half a line at the end, of a record that was never completely written, is cut off.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from buoy.errors import StoreError
from buoy.store.local import told

__all__ = ["Part", "Spool", "sealed", "sync_folder", "taken"]

_SUFFIX = ".jsonl"
_SYNC_S = 1.0
#: A part of an hour that is over is closed when nothing more has come for so long.
_IDLE_S = 5.0
#: Parts of different hours that are written at once: more come only from a clock that jumps.
_MOST_OPEN = 4


class Part:
    """One file that is being written."""

    def __init__(self, folder: Path, captured: str) -> None:
        self.hour = captured[:13]
        stamp = f"{captured[:10]}_{captured[11:13]}-{captured[14:16]}{captured[17:19]}"
        path = folder / f"{stamp}-{secrets.token_hex(4)}{_SUFFIX}"
        self.size_bytes = 0
        self.began_s = self.written_s = time.monotonic()
        self._synced_s = 0.0
        self._whole = True
        with told(path):
            new = folder / f".{path.name}"  # nobody may see it before it is locked
            self._fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                os.rename(new, path)
                sync_folder(folder)
            except BaseException:
                self.close()
                raise
        self.path = path

    def append(self, data: bytes) -> None:
        """Add lines, all or none.

        Raises:
            StoreError: they cannot be written.
        """
        with told(self.path):
            if not self._whole:
                self._cut()
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except OSError:
                self._whole = False
                with suppress(OSError):
                    self._cut()
                raise
        self.size_bytes += len(data)
        self.written_s = time.monotonic()

    def sync(self) -> None:
        """See to it that a power cut leaves it.

        Raises:
            StoreError: the disk refuses.
        """
        if self._synced_s < self.written_s:
            self._synced_s = time.monotonic()
            with told(self.path):
                os.fsync(self._fd)

    @property
    def sync_due(self) -> bool:
        """Whether something has waited long enough for `sync`."""
        return self._synced_s < self.written_s and time.monotonic() - self._synced_s >= _SYNC_S

    def close(self) -> None:
        """Nothing more will be written: it can be sent."""
        with suppress(OSError):
            os.close(self._fd)

    def _cut(self) -> None:
        os.ftruncate(self._fd, self.size_bytes)
        self._whole = True


class Spool:
    """The parts of one sink; used by one thread.

    Args:
        folder: where they are.
        part_s: a part is closed when it is so old,
        part_bytes: or so large.
        most_bytes: more than this is not kept.
        begun: called when the folder has been made.
    """

    def __init__(
        self, folder: Path, *, part_s: float, part_bytes: int, most_bytes: int, begun: Callable[[Path], None]
    ) -> None:
        self.folder = folder
        self._part_s = part_s
        self._part_bytes = part_bytes
        self._most_bytes = most_bytes
        self._begun = begun
        self._has_begun = False
        self._parts: dict[str, Part] = {}
        self._measured_s = float("-inf")
        #: How much waits on the disk.
        self.kept_bytes = 0

    def append(self, captured: str, data: bytes) -> None:
        """Add lines to the hour of `captured`, all or none.

        Raises:
            StoreError: the disk, or the room given to the spool, is full.
        """
        self._check_room(len(data))
        part = self._parts.get(captured[:13])
        if part is None:
            if len(self._parts) >= _MOST_OPEN:
                self._close(min(self._parts.values(), key=lambda each: each.written_s))
            self._begin()
            part = self._parts[captured[:13]] = Part(self.folder, captured)
        part.append(data)
        self.kept_bytes += len(data)

    def tick(self) -> bool:
        """Do what is due; tells whether a part can now be sent.

        Raises:
            StoreError: the disk refuses.
        """
        self._measure()
        closed = False
        for part in list(self._parts.values()):
            if self._is_over(part):
                closed |= self._close(part)
            elif part.sync_due:
                part.sync()
        return closed

    def close(self) -> None:
        """Close every part."""
        for part in list(self._parts.values()):
            with suppress(StoreError):
                self._close(part)

    def _begin(self) -> None:
        if not self._has_begun:
            with told(self.folder):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._begun(self.folder)
            self._has_begun = True

    def _close(self, part: Part) -> bool:
        del self._parts[part.hour]
        try:
            part.sync()
        finally:
            part.close()
        return True

    def _is_over(self, part: Part) -> bool:
        now_s = time.monotonic()
        if now_s - part.began_s >= self._part_s or part.size_bytes >= self._part_bytes:
            return True
        # By the clock of this machine, since a camera that is silent brings no other.
        return datetime.now(UTC).strftime("%Y-%m-%dT%H") != part.hour and now_s - part.written_s >= _IDLE_S

    def _check_room(self, size_bytes: int) -> None:
        self._measure()
        if self.kept_bytes + size_bytes > self._most_bytes:
            raise StoreError(
                f"{self.folder}: {self._most_bytes >> 20} MiB wait to be sent, and no more is kept",
                "see why the store does not take them",
                retry=True,
            )

    def _measure(self) -> None:
        """See how much is there: others take parts away."""
        if time.monotonic() - self._measured_s < 1.0:
            return
        self._measured_s = time.monotonic()
        total = 0
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
        self.kept_bytes = total


def sealed(folder: Path) -> list[Path]:
    """Parts that may be ready to be sent, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIX) and not path.name.startswith("."))


@contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Lock a part that nobody writes, and cut off half a line at its end; `False` if it is no such part.

    Raises:
        StoreError: the disk refuses.
    """
    with told(path):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # another has sent it
            yield False
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if not os.fstat(fd).st_nlink:
                yield False
                return
            _cut_half_line(fd)
            if not os.fstat(fd).st_size:
                os.unlink(path)
                yield False
                return
            yield True
        finally:
            os.close(fd)


def sync_folder(folder: Path) -> None:
    """See to it that a power cut leaves the names in a folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cut_half_line(fd: int) -> None:
    end = size = os.fstat(fd).st_size
    while end:
        begin = max(0, end - 65536)
        at = os.pread(fd, end - begin, begin).rfind(b"\n")
        if at >= 0:
            end = begin + at + 1
            break
        end = begin
    if end != size:
        os.ftruncate(fd, end)
