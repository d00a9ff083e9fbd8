"""Walking below a bucket's folder by descriptors, so that no symbolic link is ever followed."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

from buoy.errors import MissingError
from buoy.store import Object
from buoy.store.complete import is_quiet, is_whole, leases_trusted
from buoy.store.local import told
from buoy.store.names import hidden, key_fault, unfinished

__all__ = ["ABSENT", "FILE", "object_of", "open_folder", "walk"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: How to open an object; a pipe must not make us wait.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: What opening says where there is no object: nothing, a file for a folder, a link, a socket.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})

_RUN = 256
_log = logging.getLogger("buoy.store")


def object_of(bucket: str, key: str, found: os.stat_result) -> Object:
    """Describe a file as an object."""
    etag = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    return Object(bucket, key, found.st_size, etag, found.st_mtime)


@contextmanager
def open_folder(root: Path, bucket: str, names: Sequence[bytes], *, make: bool = False) -> Iterator[int]:
    """Open a folder of a bucket name by name.

    Args:
        root: where the buckets are.
        bucket: the bucket, which the caller has checked: nothing else may be the name of a folder there.
        names: the way to the folder.
        make: whether to make what is not there.

    Raises:
        MissingError: there is no such bucket.
        OSError: anything else; `ABSENT` has what to expect.
    """
    try:
        folder = os.open(root / bucket, _FOLDER)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        raise MissingError(f"there is no bucket {bucket!r} in {root}", "make it first") from error
    try:
        for name in names:
            if make:
                _make(name, folder)
            below = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _make(name: bytes, folder: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        os.fsync(folder)


def walk(root: Path, bucket: str, prefix: str, after: str) -> Iterator[Object]:
    """All objects whose keys start with `prefix` and come after `after`, in byte order of the keys.

    Only folders that can hold such keys are read, and only one folder's names are in memory at a
    time (and those of the folders above it).
    """
    with told(root / bucket), open_folder(root, bucket, []):
        pass
    # Lone surrogates are in no key, but a caller's prefix may have them.
    start, slash, rest = prefix.encode(errors="surrogatepass").rpartition(b"/")
    floor = after.encode(errors="surrogatepass")
    if slash and key_fault(f"{start.decode(errors='replace')}/", file=True):
        return
    stack = [_entries(root, bucket, start + slash, rest, floor)]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
        elif isinstance(found, Object):
            yield found
        else:
            stack.append(_entries(root, bucket, found, b"", floor))


def _entries(root: Path, bucket: str, above: bytes, start: bytes, floor: bytes) -> Generator[Object | bytes]:
    """The objects of one folder, and the keys of the folders in it, in byte order."""
    way = [name for name in above.split(b"/") if name]
    with told(root / bucket):
        names, trusted = _names(root, bucket, way, start)
    # A folder sorts as the keys in it do: "a.b" comes before "a/b".
    keys = sorted(above + name for name in names)
    keys = [key for key in keys if key > floor or (key.endswith(b"/") and floor.startswith(key))]
    for folders, run in groupby(keys, lambda key: key.endswith(b"/")):
        if folders:
            yield from run
            continue
        files = list(run)
        for first in range(0, len(files), _RUN):
            with told(root / bucket):
                objects = _describe(root, bucket, way, files[first : first + _RUN], trusted)
            yield from objects


def _names(root: Path, bucket: str, way: list[bytes], start: bytes) -> tuple[list[bytes], bool]:
    """Names of the files and folders (with a slash) of one folder, and whether leases work there."""
    names = []
    try:
        with open_folder(root, bucket, way) as folder, os.scandir(folder) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if not name.startswith(start) or hidden(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    names.append(name + b"/")
                elif entry.is_file(follow_symlinks=False) and not unfinished(name):
                    names.append(name)
            return [name for name in names if _is_utf8(name, root / bucket)], leases_trusted(folder)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return [], False  # removed meanwhile


def _is_utf8(name: bytes, where: Path) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        _log.warning("%s: the name %r is not UTF-8, so nothing can be done with it: rename it", where, name)
        return False
    return True


def _describe(root: Path, bucket: str, way: list[bytes], keys: list[bytes], trusted: bool) -> list[Object]:
    """The objects among the files `keys` of one folder."""
    objects = []
    try:
        with open_folder(root, bucket, way) as folder:
            for key in keys:
                found = _whole(key.rpartition(b"/")[2], folder, trusted)
                if found is not None:
                    objects.append(object_of(bucket, key.decode(), found))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
    return objects


def _whole(name: bytes, folder: int, trusted: bool) -> os.stat_result | None:
    """Stat the file if nobody is writing it."""
    try:
        fd = os.open(name, FILE, dir_fd=folder)
    except PermissionError:  # it is there all the same: reading it will say what is wrong
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found if is_quiet(found) else None
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return None
    try:
        return os.fstat(fd) if is_whole(fd, trusted=trusted) else None
    finally:
        os.close(fd)
