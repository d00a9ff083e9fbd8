"""A folder that grows: every picture in it once, in the order in which they came."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator
from pathlib import Path

from watchfiles._rust_notify import RustNotify

from buoy.errors import BuoyError, InputError, RefusedError, SourceError
from buoy.store.complete import is_whole, leases_trusted
from buoy.store.names import hidden, unfinished
from buoy.streams.frame import Picture
from buoy.streams.progress import Progress, file_key, file_version
from buoy.streams.sources.halt import Halt

__all__ = ["SUFFIXES", "FolderSource"]

#: Other files are no pictures, such as lists that cameras write beside them.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".webp")

_MOST_BYTES = 64 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEBOUNCE_MS, _STEP_MS = 20, 5
#: How often a file is looked at again that somebody is writing, and the whole folder in case an event got lost.
_UNFINISHED_MS, _RESCAN_MS = 50, 2000

#: A file as it is now: time of its last change (ns), size, inode. Another content is another picture.
_Version = tuple[int, int, int]


class FolderSource:
    """A folder and those below it. Existing files first, by age; then what is written, moved in or written anew.

    Only files that nobody is writing are read (`buoy.store.complete`). Those with hidden or unfinished names, links
    and devices are passed over, as stores do.

    Args:
        path: of the folder.
        progress: which files are done with already; told of those that are gone.
    """

    again = True
    connects = False
    silence_s = None
    peer = None

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        #: What was given, by the hash of the name: forgotten when the file is gone, so bounded by the folder. Of what
        #: an opening before has given, only a hash of the version is known until the file is looked at.
        self._given: dict[bytes, _Version | bytes] = {**progress.take_files()}

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
        """Each picture once, over several calls too."""
        if not self._path.is_dir():
            raise RefusedError(f"{self._path}: there is no such folder", "make it, or check the path")
        try:
            # Polling instead of events would need a thread; rescanning finds what a network's file system hides.
            with RustNotify([str(self._path)], False, False, 0, True, True) as notify:
                yield from self._follow(notify, halt)
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from None

    def _follow(self, notify: RustNotify, halt: Halt) -> Generator[Picture | None]:
        writing: set[Path] = set()
        changed: set[Path] | None = None  # everything
        scan_s = 0.0
        while not halt.is_set():
            # Events are kept by `notify` from its beginning until they are asked for, so none is lost meanwhile.
            began_s = time.monotonic()
            if changed is None or began_s >= scan_s:
                found = self._scan()
                # A large folder is read less often: at most a twentieth of the time goes into it.
                scan_s = time.monotonic() + max(_RESCAN_MS / 1000, 20 * (time.monotonic() - began_s))
            else:
                found = self._look(changed | writing)
            writing = set()
            for path, version in found:
                if halt.is_set():
                    return
                picture = self._read(path, version)
                if picture is None:
                    writing.add(path)
                else:
                    yield picture
            changed = self._wait(notify, halt, _UNFINISHED_MS if writing else _RESCAN_MS)
            yield None

    def _wait(self, notify: RustNotify, halt: Halt, pause_ms: int) -> set[Path] | None:
        """What changed, perhaps nothing; `None` if everything must be looked at."""
        changes = notify.watch(_DEBOUNCE_MS, _STEP_MS, pause_ms, halt)
        paths = {Path(path) for _, path in changes} if isinstance(changes, set) else set()
        # A folder that was moved in comes as one change.
        return None if any(path.is_dir() for path in paths) else paths

    def _scan(self) -> list[tuple[Path, _Version]]:
        """All pictures that were not given yet, oldest first; forgets those that are gone."""
        if not self._path.is_dir():
            raise SourceError(f"{self._path}: the folder is gone")
        new, present = [], set()
        for parent, folders, names in os.walk(self._path):
            folders[:] = [name for name in folders if not hidden(os.fsencode(name))]
            for name in names:
                path = Path(parent, name)
                if (version := _version(path)) is None:
                    continue
                key = _key(path)
                present.add(key)
                if self._is_new(key, version):
                    new.append((path, version))
        # A folder in which nothing is left is more likely one that is not mounted.
        for key in self._given.keys() - present if present else ():
            self._progress.gone(key + _brief(self._given.pop(key)))
        return _by_age(new)

    def _look(self, paths: set[Path]) -> list[tuple[Path, _Version]]:
        """The pictures among some files that were not given yet, oldest first."""
        versions = [(path, version) for path in paths if (version := _version(path)) is not None]
        return _by_age([(path, version) for path, version in versions if self._is_new(_key(path), version)])

    def _is_new(self, key: bytes, version: _Version) -> bool:
        known = self._given.get(key)
        if isinstance(known, bytes) and known == _brief(version):
            known = self._given[key] = version
        return known != version

    def _read(self, path: Path, version: _Version) -> Picture | None:
        """The picture, or why it cannot be read; `None` if it is being written."""
        image: bytes | BuoyError
        try:
            fd = os.open(path, _FILE)
        except FileNotFoundError:
            return None
        except OSError as error:
            image = InputError(f"{path.name}: {error.strerror}", "check its owner and mode")
        else:
            with os.fdopen(fd, "rb") as file:
                if not is_whole(fd, trusted=leases_trusted(fd)):
                    return None
                version = _version_of(os.fstat(fd))
                if version[1] > _MOST_BYTES:
                    image = InputError(f"{path.name} has {version[1]:,} bytes; the limit is {_MOST_BYTES:,}")
                else:
                    image = file.read()
        key = _key(path)
        self._given[key] = version
        return Picture(
            image,
            captured_s=min(version[0] / 1e9, time.time()),
            name=path.relative_to(self._path).as_posix(),
            mark=key + _brief(version),
        )


def _by_age(found: list[tuple[Path, _Version]]) -> list[tuple[Path, _Version]]:
    return sorted(found, key=lambda each: (each[1][0], each[0]))


def _version(path: Path) -> _Version | None:
    """The file's version, if it is one that may hold a picture."""
    name = os.fsencode(path.name)
    if not path.name.lower().endswith(SUFFIXES) or hidden(name) or unfinished(name):
        return None
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return _version_of(found) if stat.S_ISREG(found.st_mode) else None


def _version_of(found: os.stat_result) -> _Version:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _key(path: Path) -> bytes:
    return file_key(os.fsencode(path))


def _brief(version: _Version | bytes) -> bytes:
    return version if isinstance(version, bytes) else file_version(version[0], version[1])
