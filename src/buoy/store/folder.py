"""A store in a folder: a bucket is a folder below the root, an object is a file below that.

    root/obsea-fish/input/2011/x.jpg    bucket obsea-fish, key input/2011/x.jpg
    root/.buoy/                         what is being written, and buckets that are being deleted

People and programs may copy, move, rename and delete files there as they like. What counts:

* **An object is a regular file that nobody is writing**, whoever made it (`complete.py`). A file
  with a hidden or unfinished name (`names.py`), a symbolic link, a device, or a name that is not
  UTF-8 is no object: listings leave it out, reading says `MissingError`, putting is refused.
* Symbolic links are never followed below the root, so no key leads out of its bucket; to have a
  bucket on another disk, mount it there.
* A key that ends in a slash is a folder: putting it makes the folder, and no listing shows it.
* Nothing can lie below an object (`a` and `a/b`): a file is no folder.
* An etag is made of time, size and inode of the file, so every put gives a new one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat as mode
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import BufferedReader, BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from buoy.errors import ChangedError, ExistsError, MissingError, StoreError
from buoy.store import Body, Object, Page
from buoy.store.complete import is_whole, leases_trusted, wait_whole
from buoy.store.local import PIECE_BYTES, appearing, reading, told
from buoy.store.names import check_bucket, check_key, is_bucket, key_fault
from buoy.store.tree import ABSENT, FILE, object_of, open_folder, walk

__all__ = ["FolderStore"]

_OURS = ".buoy"
_STALE_S = 24 * 3600.0


class FolderStore:
    """Buckets and objects as folders and files; for many threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._swept = False

    def __repr__(self) -> str:
        return f"FolderStore({str(self.root)!r})"

    def close(self) -> None:
        """Nothing is kept open."""

    # Buckets

    def buckets(self) -> list[str]:
        """Names of all buckets, sorted."""
        with told(self.root), suppress(FileNotFoundError), os.scandir(self.root) as entries:
            return sorted(e.name for e in entries if is_bucket(e.name) and e.is_dir(follow_symlinks=False))
        return []

    def create_bucket(self, bucket: str) -> bool:
        """Make the bucket, and the root if need be; `False` if it was there already."""
        check_bucket(bucket, read=False)
        with told(self.root / bucket):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                (self.root / bucket).mkdir()
            except FileExistsError:
                with self._folder(bucket, []):
                    return False
            return True

    def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket and everything in it, also what is no object."""
        with told(self.root / bucket):
            with self._folder(bucket, []):
                trash = self._ours("trash") / secrets.token_hex(8)
            try:
                os.rename(self.root / bucket, trash)  # for everybody else it is gone in one step
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EBUSY):
                    raise
                trash = self.root / bucket  # a disk is mounted there
            _clear(trash)

    # Objects

    def put(self, bucket: str, key: str, body: Body, *, create_only: bool = False) -> Object:
        """Write the object whole or not at all; nobody ever reads half of it."""
        check_key(key, file=True, read=False)
        where = self._where(bucket, key)
        with told(where), self._folder(bucket, []):
            pass  # told before anything is written
        with reading(body) as source, told(where), _taken(where):
            if key.endswith("/"):
                return self._put_marker(bucket, key, source, create_only)
            *folders, name = key.encode().split(b"/")
            temp = self._ours("new") / secrets.token_hex(8)
            try:
                found = _write(temp, source)
                with self._folder(bucket, folders, make=True) as folder:
                    _land(temp, folder, name, create_only)
                    os.fsync(folder)
            finally:
                with suppress(FileNotFoundError):
                    temp.unlink()
        return object_of(bucket, key, found)

    def _put_marker(self, bucket: str, key: str, source: BinaryIO, create_only: bool) -> Object:
        if source.read(1):
            raise StoreError(f"{key!r} is a folder here, which has no content", "take the slash off its end")
        *folders, name = key.encode().split(b"/")[:-1]
        allowed = nullcontext() if create_only else suppress(FileExistsError)
        with self._folder(bucket, folders, make=True) as above, allowed:
            os.mkdir(name, dir_fd=above)
        with self._folder(bucket, [*folders, name]):
            return self.stat(bucket, key)

    def stat(self, bucket: str, key: str, *, version: str = "") -> Object:
        """Size, etag and time of one object."""
        with self._open(bucket, key, version=version) as (found, _):
            return found

    def get(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: str = ""
    ) -> bytes:
        """The bytes `start:stop` of the object (all of it by default)."""
        with self._open(bucket, key, etag, version) as (found, file):
            file.seek(start)
            data = file.read(-1 if stop is None else max(0, stop - start))
            if etag and isinstance(file, BufferedReader):
                self._check_same(found, file)
            return data

    def stream(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> Generator[bytes]:
        """The same, in pieces of 1 MiB."""
        pieces = self._pieces(bucket, key, start, stop, etag)
        next(pieces)  # opens the file, so that it is this call that says if it is missing
        return pieces

    def _pieces(self, bucket: str, key: str, start: int, stop: int | None, etag: str) -> Generator[bytes]:
        with self._open(bucket, key, etag) as (found, file):
            yield b""
            left = (found.size_bytes if stop is None else stop) - file.seek(start)
            while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece

    def fetch(self, bucket: str, key: str, path: Path, *, etag: str = "", version: str = "") -> Object:
        """Write the object into a local file in bounded memory; the file appears only when complete."""
        with self._open(bucket, key, etag, version) as (found, file), appearing(path) as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)
            if isinstance(file, BufferedReader):
                self._check_same(found, file)
        return found

    def list(self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, markers: bool = False) -> Page:
        """Up to `limit` (and 1,000) objects whose keys start with `prefix` and come after `after`."""
        self._check(bucket)
        limit = min(limit, 1000)
        objects = [*islice(walk(self.root, bucket, prefix, after), limit + 1)]
        return Page(objects[:limit], objects[limit - 1].key if len(objects) > limit else "")

    def walk(self, bucket: str, prefix: str = "") -> Iterator[Object]:
        """All objects under the prefix; what comes or goes meanwhile may be in it or not."""
        self._check(bucket)
        return walk(self.root, bucket, prefix, "")

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; no error if it is not there (as S3). The folders above it stay.

        Of a folder marker: the folder itself, if it is empty.
        """
        check_key(key, file=True, read=False)
        *folders, name = key.rstrip("/").encode().split(b"/")
        with told(self._where(bucket, key)):
            try:
                with self._folder(bucket, folders) as folder:
                    if key.endswith("/"):
                        os.rmdir(name, dir_fd=folder)
                    else:
                        os.unlink(name, dir_fd=folder)
            except OSError as error:
                if error.errno not in {*ABSENT, errno.EISDIR, errno.ENOTEMPTY}:
                    raise

    # For whoever watches the files

    def is_complete(self, bucket: str, key: str) -> bool:
        """Whether there is an object of that key: a file that nobody is writing (any more)."""
        try:
            self.stat(bucket, key)
        except MissingError:
            return False
        return True

    def locate(self, path: Path) -> tuple[str, str] | None:
        """Bucket and key of the file at `path`; `None` where no object can be."""
        with suppress(ValueError):
            bucket, *names = path.relative_to(self.root).parts
            key = "/".join(names)
            if is_bucket(bucket) and not key_fault(key, file=True):
                return bucket, key
        return None

    # Inside

    def _where(self, bucket: str, key: str) -> str:
        return f"{self.root}/{bucket}/{key}"

    def _check(self, bucket: str) -> None:
        """Refuse what is no bucket, above all what would lead out of the root."""
        check_bucket(bucket, read=True)

    def _folder(self, bucket: str, names: Sequence[bytes], *, make: bool = False) -> AbstractContextManager[int]:
        self._check(bucket)
        return open_folder(self.root, bucket, names, make=make)

    @contextmanager
    def _open(self, bucket: str, key: str, etag: str = "", version: str = "") -> Iterator[tuple[Object, BinaryIO]]:
        """Open an object for reading, if it is that of the `etag`; what is being written is not there yet."""
        check_key(key, file=True, read=True)
        where = self._where(bucket, key)
        if version:
            raise MissingError(f"{where} has no version {version!r}: a folder keeps none")
        *folders, name = key.encode().split(b"/")
        with told(where):
            try:
                with self._folder(bucket, folders) as folder:
                    if not name:  # the marker of a folder
                        found = object_of(bucket, key, os.fstat(folder))._replace(size_bytes=0)
                        yield found, BytesIO()
                        return
                    fd = os.open(name, FILE, dir_fd=folder)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                raise MissingError(f"there is no object {where}") from error
            if not mode.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise MissingError(f"there is no object {where}: that is not a file")
            with open(fd, "rb") as file:
                if not is_whole(fd, trusted=leases_trusted(fd)):
                    raise MissingError(f"{where} is still being written", "try again", retry=True)
                found = object_of(bucket, key, os.fstat(fd))
                if etag and found.etag != etag:
                    raise ChangedError(f"{where} has changed")
                yield found, file

    def _check_same(self, found: Object, file: BufferedReader) -> None:
        if object_of(found.bucket, found.key, os.fstat(file.fileno())) != found:
            where = self._where(found.bucket, found.key)
            raise StoreError(f"{where} was written to while it was read", "try again", retry=True)

    def _base(self) -> Path:
        return self.root

    def _ours(self, name: str) -> Path:
        """A folder of our own, on the file system of the buckets."""
        ours = self._base() / _OURS
        (ours / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            _sweep(ours)
        return ours / name


def _write(temp: Path, source: BinaryIO) -> os.stat_result:
    """Write a new file to the disk, and close it for everybody."""
    with temp.open("xb") as file:
        shutil.copyfileobj(source, file, PIECE_BYTES)
        file.flush()
        # The kernel's own time moves in steps of milliseconds: two puts would look alike.
        os.utime(file.fileno(), ns=(time.time_ns(),) * 2)
        os.fsync(file.fileno())
    with temp.open("rb") as file:
        wait_whole(file.fileno())
        return os.fstat(file.fileno())


def _land(temp: Path, folder: int, name: bytes, create_only: bool) -> None:
    """Give the file its name in one step: a link, of which only one can be made, or a renaming."""
    try:
        if create_only:
            os.link(temp, name, dst_dir_fd=folder)
        else:
            os.rename(temp, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise StoreError(
                f"{temp.parent} and the folder of {os.fsdecode(name)!r} are on different disks",
                "mount one disk at the data folder, not at a folder inside it",
            ) from error
        if create_only and error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise StoreError(
                f"the file system of {temp.parent} has no hard links, so creating cannot be exclusive",
                "choose a data folder on a Linux file system",
            ) from error
        raise


@contextmanager
def _taken(where: str) -> Iterator[None]:
    """Say what stands in the way of a name."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
            raise
        if error.errno == errno.EEXIST and os.path.isdir(where.rstrip("/")) == where.endswith("/"):
            raise ExistsError(f"the object {where} is there already") from error
        raise StoreError(
            f"{where} cannot be written: there is a folder of that name, or a part of the way to it is a "
            "file or a link",
            "in a folder no object can lie below another: choose another key",
        ) from error


def _clear(folder: Path) -> None:
    """Remove a folder in which others may be removing, or finishing to write, at the same time."""
    while os.path.lexists(folder):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def _sweep(ours: Path) -> None:
    """Remove what a crash has left of earlier writes and deletions."""
    for left in (*ours.glob("new/*"), *ours.glob("trash/*")):
        with suppress(OSError):
            if left.parent.name == "trash":
                _clear(left)
            elif time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
