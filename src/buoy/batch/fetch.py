"""Objects on their way from the store: read ahead, pinned by their etags, opened into the pictures that are in them."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from buoy.archive import MAX_ENTRY_BYTES, is_zip, pictures_in
from buoy.batch.area import Area
from buoy.batch.manifest import Row
from buoy.batch.patience import Patience
from buoy.batch.spec import VIDEOS
from buoy.errors import BuoyError, ChangedError, InputError, MissingError, StoreError

__all__ = ["Ahead", "Content", "Opened"]

#: Larger objects go through a file.
_IN_MEMORY_BYTES = 32 << 20
#: What an object counts for that is not known to be smaller.
_UNKNOWN_BYTES = 4 << 20
#: An object that changes while it is read is looked at so often, if nobody has said which content is meant.
_LOOKS = 3
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")

#: Encoded bytes of a picture, the path of a video, or why there is none.
Content = bytes | Path | BuoyError


class Opened(NamedTuple):
    """An object that was fetched."""

    row: Row
    #: Empty, or what it is instead: changed, deleted, empty, skipped.
    fate: str
    #: The pictures in it, each with its name in the object: one without a name if it is a picture itself. What went
    #: through a file is read from it when its turn comes.
    items: Iterator[tuple[str, Content]]
    #: To be removed when it is done.
    file: Path | None = None


class Ahead:
    """Fetches rows in their order, several at once, a bounded number of bytes ahead.

    Args:
        source: whole keys are relative to it.
        patience: how faults of the store are met.
        fetchers: requests at once.
        ahead_bytes: of objects that are fetched and not done; one object may be larger.
    """

    def __init__(self, source: Area, patience: Patience, *, fetchers: int, ahead_bytes: int) -> None:
        self._source, self._patience = source, patience
        self._ahead_bytes, self._most = ahead_bytes, fetchers * 4
        self._pool = ThreadPoolExecutor(fetchers, thread_name_prefix="fetch")
        self._folder = tempfile.TemporaryDirectory(prefix="buoy-batch-")
        self._coming: deque[tuple[Row, Future[Opened]]] = deque()
        self._held: dict[int, int] = {}

    def ask(self, rows: deque[Row], ready: Callable[[], None]) -> None:
        """Ask for the next of the rows, as many as there is room for; `ready` is called for each that came."""
        while rows and len(self._held) < self._most:
            row = rows[0]
            size_bytes = row.size_bytes or _UNKNOWN_BYTES
            if row.fate or size_bytes > _IN_MEMORY_BYTES:
                size_bytes = 0
            if self._held and sum(self._held.values()) + size_bytes > self._ahead_bytes:
                return
            rows.popleft()
            self._held[row.row] = size_bytes
            future = self._pool.submit(self._open, row)
            self._coming.append((row, future))
            future.add_done_callback(lambda _: ready())

    def next(self) -> Opened | None:
        """The next object in order, if it has come.

        Raises:
            StoreError: the store refuses, or has failed for too long.
        """
        if not self._coming or not self._coming[0][1].done():
            return None
        return self._coming.popleft()[1].result()

    @property
    def waiting(self) -> bool:
        """Whether an object is on its way."""
        return bool(self._coming)

    def release(self, opened: Opened) -> None:
        """The object is done: its room is free."""
        self._held.pop(opened.row.row, None)
        if opened.file is not None:
            opened.file.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget what is on its way."""
        for _, future in self._coming:
            future.cancel()
        self._coming.clear()
        self._held.clear()

    def hurry(self, seconds: float) -> None:
        """See `Patience.hurry`."""
        self._patience.hurry(seconds)

    def close(self) -> None:
        """End the threads and remove the files."""
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def _open(self, row: Row) -> Opened:
        if row.fate:
            return Opened(row, row.fate, iter(()))
        try:
            return self._read(row) if row.pinned else self._read_first(row)
        except ChangedError:
            return Opened(row, "changed", iter(()))
        except StoreError as error:
            if error.retry:
                raise
            self._check_source()
            if isinstance(error, MissingError):
                return Opened(row, "deleted", iter(()))
            return Opened(row, "", iter([("", error)]))

    def _read_first(self, row: Row) -> Opened:
        """Read what a list has named without its etag or size: it is pinned by what the store says at the first look.

        Raises:
            ChangedError: it is not what the list says, or changes all the time.
        """
        for left in reversed(range(_LOOKS)):
            found = self._patience.call(lambda: self._source.stat(row.key, version=row.version))
            if row.etag not in ("", found.etag):
                raise ChangedError(f"{row.key} has changed since it was listed")
            pinned = row._replace(etag=found.etag, size_bytes=found.size_bytes)
            if not found.size_bytes:
                return Opened(pinned, "empty", iter(()))
            try:
                return self._read(pinned)
            except ChangedError:
                if not left:
                    raise
        raise AssertionError

    def _read(self, row: Row) -> Opened:
        if row.key.lower().endswith((*VIDEOS, ".zip")) or row.size_bytes > _IN_MEMORY_BYTES:
            return self._read_file(row)
        data = self._patience.call(lambda: self._source.get(row.key, etag=row.etag, version=row.version))
        if data[:4] in _MAGIC:  # whatever it is called
            path = self._path(row)
            path.write_bytes(data)
            return Opened(row, "", _entries(path), path)
        return Opened(row, "", iter([("", data)]))

    def _check_source(self) -> None:
        """Tell what is wrong with one object from what is wrong with all of them.

        Raises:
            StoreError: the source as a whole is gone, or refuses us.
        """
        try:
            self._patience.call(lambda: self._source.store.list(self._source.bucket, limit=1))
        except StoreError as error:
            raise StoreError(f"the source cannot be read any more: {error.message}", error.hint) from error

    def _read_file(self, row: Row) -> Opened:
        path = self._path(row)
        self._patience.call(lambda: self._source.fetch(row.key, path, etag=row.etag, version=row.version))
        if row.key.lower().endswith(VIDEOS):
            return Opened(row, "", iter([("", path)]), path)
        return Opened(row, "", _entries(path) if is_zip(path) else _picture(path, row), path)

    def _path(self, row: Row) -> Path:
        return Path(self._folder.name) / f"{row.row}"


def _picture(path: Path, row: Row) -> Iterator[tuple[str, Content]]:
    """A large picture, unless it is larger than any picture is."""
    if row.size_bytes > MAX_ENTRY_BYTES:
        most = f"{MAX_ENTRY_BYTES >> 20} MiB"
        yield "", InputError(f"{row.key} has {row.size_bytes >> 20} MiB, more than {most}", "is it a picture?")
    else:
        yield "", path.read_bytes()


def _entries(path: Path) -> Iterator[tuple[str, Content]]:
    """The pictures of a zip; one that is broken as a whole is a failed item without a name."""
    try:
        yield from pictures_in(path)
    except InputError as error:
        yield "", error
