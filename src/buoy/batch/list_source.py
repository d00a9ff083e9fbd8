"""A run over the objects that a list names: one that somebody has, or an inventory of S3.

The list may be in any order and of any length; the manifest is in the order of keys all the same. A line that cannot
be read costs itself alone, and is told of; a list of which no line can be read is refused.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from buoy.batch.area import Area, open_area
from buoy.batch.inventory import OLD, Inventory, read_file, read_inventory
from buoy.batch.list_file import Lines, Told, read_list
from buoy.batch.manifest import Listed, Lister, Notes
from buoy.batch.order import Entry, in_order
from buoy.batch.sieve import Sieve
from buoy.batch.spec import Filters, ListPin
from buoy.errors import MissingError, UsageError
from buoy.store.names import key_fault

__all__ = ["ListLister", "pin_list"]

#: So many bad lines before the first good one: this is no list.
_TRIED = 1000
#: What is wrong is told of so many lines.
_TELLS = 100
#: Times above are in milliseconds.
_SECONDS = 1e11


def pin_list(where: str, source: str) -> ListPin:
    """Pin a list by its content.

    Args:
        where: a path, or `s3://bucket/key`.
        source: of the run.

    Raises:
        UsageError: there is no such list, or nothing in it can be read.
    """
    if not where.startswith("s3://"):
        where = str(Path(where).absolute())
    with _copy(where) as path:
        pin = ListPin(where=where, sha256=_digest(path))
    lister = ListLister(pin, source, open_area(source), Sieve(Filters()), Filters())
    next(lister.entries(_Faults()), None)
    return pin


class ListLister(Lister):
    """See the module.

    Args:
        pin: the list.
        source: what its keys are relative to, if they are no whole addresses.
        area: the source, opened.
        sieve: the filters, and what they need to know of an object.
    """

    def __init__(self, pin: ListPin, source: str, area: Area, sieve: Sieve, filters: Filters) -> None:
        self._pin, self._source, self._area, self._sieve = pin, source, area, sieve
        self._s3 = source.startswith("s3://")
        self._needs_size = filters.least_bytes > 0 or filters.most_bytes is not None
        self._needs_time = filters.since_s is not None or filters.until_s is not None
        self._whole_keys = False
        self._notes: Notes | None = None

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects that come after so many of them."""
        return islice(self._all(), skip, None)

    def notes(self) -> Notes:
        """How many lines could not be read, and why."""
        if self._notes is None:
            deque(self._all(), maxlen=0)
        assert self._notes is not None
        return self._notes

    def _all(self) -> Iterator[Listed]:
        faults, last = _Faults(), None
        with TemporaryDirectory(prefix="buoy-list-") as folder:
            for entry in in_order(self.entries(faults), Path(folder)):
                if last is not None and last[:2] == entry[:2]:
                    if last.etag == entry.etag:
                        faults.repeated += 1
                    else:
                        faults.add(entry.line, f"names {entry.key!r} with another etag than line {last.line:,}")
                    continue
                last = entry
                if not entry.key.startswith(self._area.prefix):
                    yield Listed(entry.key, 0, "", 0.0, "outside")
                    continue
                yield self._sieve.sift(entry.key, entry.size_bytes, entry.etag, entry.modified_s or 0.0, entry.version)
        self._notes = Notes(faults.bad, tuple(faults.told), faults.repeated, faults.old)

    def entries(self, faults: _Faults) -> Iterator[Entry]:
        """The good lines, as they come.

        Raises:
            UsageError: the list as a whole is wrong, or not the one that was pinned.
        """
        good = False
        with _copy(self._pin.where) as path:
            if _digest(path) != self._pin.sha256:
                raise UsageError(
                    f"{self._pin.where} is not the list that the run began with",
                    "bring that list back, or begin another run with this one",
                )
            for line, told in self._lines(path):
                if told == OLD:
                    faults.old += 1
                    good = True
                    continue
                entry = told if isinstance(told, str) else self._entry(line, told)
                if isinstance(entry, Entry):
                    good = True
                    yield entry
                    continue
                faults.add(line, entry)
                if not good and faults.bad >= _TRIED:
                    break
        if faults.bad and not good:
            raise UsageError(
                f"{self._pin.where}: no line of the first {faults.bad:,} can be used: {faults.told[0]}",
                "is this the right list for this source?",
            )

    def _lines(self, path: Path) -> Lines:
        inventory = read_inventory(path)
        if inventory is None:
            self._whole_keys = False
            yield from read_list(path, self._pin.where)
            return
        self._whole_keys = True
        if not self._s3 or inventory.source_bucket != self._area.bucket:
            raise UsageError(
                f"the inventory is of the bucket {inventory.source_bucket}, the source is {self._source}",
                f"give s3://{inventory.source_bucket}/ as the source",
            )
        yield from self._inventory(inventory)

    def _inventory(self, inventory: Inventory) -> Lines:
        before = 0
        for file in inventory.files:
            line = 0
            with _copy_beside(self._pin.where, file.key) as path:
                for line, told in read_file(inventory, file, path):
                    bad = isinstance(told, str) and told != OLD
                    yield before + line, f"(of {file.key} line {line:,}) {told}" if bad else told
            before += line

    def _entry(self, line: int, told: Told) -> Entry | str:
        try:
            key = self._key(told.key)
            size_bytes = _size(told.size)
            modified_s = _time(told.modified)
        except ValueError as error:
            return str(error)
        if self._needs_size and size_bytes is None:
            return "has no size, which the filters need"
        if self._needs_time and modified_s is None:
            return "has no time of the last change, which the filters need"
        version = str(told.version or "")
        if version and not self._s3:
            return f"names the version {version}: a folder keeps none, leave that column out"
        return Entry(key, version, line, size_bytes, str(told.etag or "").strip().strip('"'), modified_s)

    def _key(self, told: Any) -> str:
        """The whole key of what a line names."""
        key = told.decode("utf-8", "surrogateescape") if isinstance(told, bytes) else told
        if not isinstance(key, str) or not key:
            raise ValueError("has no key")
        if not self._whole_keys:
            key = self._absolute(key)
        if fault := key_fault(key, file=not self._s3):
            raise ValueError(f"has the key {key[:80]!r}, which cannot be: {fault}")
        return key

    def _absolute(self, key: str) -> str:
        base = self._source if self._source.endswith("/") else f"{self._source}/"
        if not self._s3:
            key = key.removeprefix("./")
            return _below(key, base) if key.startswith("/") else key
        if not key.startswith("s3://"):
            return self._area.prefix + key
        _below(key, self._source)
        return key.removeprefix(f"s3://{self._area.bucket}/")


class _Faults:
    """What is wrong with a list, counted, and told of the first lines."""

    def __init__(self) -> None:
        self.bad = self.repeated = self.old = 0
        self.told: list[str] = []

    def add(self, line: int, what: str) -> None:
        self.bad += 1
        if len(self.told) < _TELLS:
            self.told.append(f"line {line:,} {what}")


def _below(address: str, base: str) -> str:
    if not address.startswith(base):
        raise ValueError(f"names {address[:120]!r}, which is not below {base}")
    return address.removeprefix(base)


def _size(told: Any) -> int | None:
    if told is None or told == "":
        return None
    try:
        size_bytes = int(told)
    except (TypeError, ValueError):
        size_bytes = -1
    if size_bytes < 0:
        raise ValueError(f"has the size {str(told)[:40]!r}: write it in bytes")
    return size_bytes


def _time(told: Any) -> float | None:
    """Seconds since 1970 of a date, or of seconds or milliseconds; without a zone it is UTC."""
    if told is None or told == "":
        return None
    try:
        if isinstance(told, datetime):
            when = told
        else:
            try:
                number = float(told)
            except ValueError:
                when = datetime.fromisoformat(told.strip())
            else:
                return number / 1000 if number > _SECONDS else number
    except (TypeError, ValueError):
        raise ValueError(f"has the time {str(told)[:40]!r}: write 2024-01-31T12:00:00Z") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _copy(where: str) -> Iterator[Path]:
    """A list as a file of this machine."""
    if not where.startswith("s3://"):
        if not Path(where).is_file():
            raise UsageError(f"{where}: no such list", "give a file, or s3://bucket/key")
        yield Path(where)
        return
    with TemporaryDirectory(prefix="buoy-list-") as folder:
        path = Path(folder) / "list"
        try:
            open_area(where).fetch("", path)
        except MissingError as error:
            raise UsageError(f"{where}: no such list", "give a file, or s3://bucket/key") from error
        yield path


@contextmanager
def _copy_beside(where: str, key: str) -> Iterator[Path]:
    """A file of an inventory: in the bucket of its manifest, or near to it on this machine."""
    if where.startswith("s3://"):
        bucket = where.removeprefix("s3://").partition("/")[0]
        with _copy(f"s3://{bucket}/{key}") as path:
            yield path
        return
    here = Path(where).parent
    name = key.rpartition("/")[2]
    for path in (*(above / key for above in (here, *here.parents)), here / name, here / "data" / name,
                 here.parent / "data" / name):  # fmt: skip
        if path.is_file():
            yield path
            return
    raise UsageError(f"{key}, which the inventory names, is not near {where}", f"copy it to {here}")
