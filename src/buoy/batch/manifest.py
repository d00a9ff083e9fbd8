"""The manifest: every object of the source as a row, in Parquet shards, written as the listing goes.

Nothing is sorted or held: memory is that of one row group. A shard is created when it is full, and its last key is
where a listing that was killed goes on. Row numbers run through the shards, all of which but the last are full.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from buoy.batch import failpoint
from buoy.batch.layout import INDEX, shard_key
from buoy.batch.ledger import Ledger, Record
from buoy.batch.tables import arrow, parquet
from buoy.errors import ExistsError

__all__ = [
    "SHARD_ROWS",
    "Index",
    "Listed",
    "Lister",
    "ManifestRows",
    "Notes",
    "Pin",
    "Row",
    "read_index",
    "write_manifest",
]

SHARD_ROWS, GROUP_ROWS = 250_000, 10_000
#: So many objects are held as such: what is freed before the garbage collector looks (every 700) costs the least.
_BATCH_ROWS = 500
#: Fates of objects that are no rows: the filters leave them out; an earlier run has looked at them.
_NO_ROWS = frozenset({"outside", "known"})
#: Fates of rows that are not looked at.
_FATES = ("empty", "skipped", "deleted")
#: The column with the fate.
_FATE = 4
_COUNTED = ("seen", *sorted(_NO_ROWS), "younger", "altered", "todo", "todo_bytes", *_FATES)

#: Keys differ little from the ones before.
_ENCODINGS = {"key": "DELTA_BYTE_ARRAY", "size_bytes": "DELTA_BINARY_PACKED", "modified_s": "BYTE_STREAM_SPLIT"}


class Row(NamedTuple):
    """One object."""

    row: int
    key: str
    size_bytes: int
    #: Empty where the listing has none: then it is not pinned.
    etag: str
    modified_s: float
    #: Empty if it is to be looked at, else what it is: empty, skipped, deleted.
    fate: str = ""
    #: Empty where nobody has named one: then it is the object that is there.
    version: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it is known which content is meant, and how large it is."""
        return bool(self.etag and self.size_bytes)


class Notes(NamedTuple):
    """What a source tells of itself beside its objects."""

    #: Lines of a list that cannot be read, and what is wrong with the first of them.
    bad: int = 0
    told: tuple[str, ...] = ()
    #: Lines that say again what another has said.
    repeated: int = 0
    #: Older versions and delete markers of an inventory.
    old: int = 0


class Pin(NamedTuple):
    """What an object was when a run was listed. Sorts by the key."""

    key: str
    etag: str
    fate: str


class Index(NamedTuple):
    """The manifest as a whole."""

    rows: int
    shards: int
    #: Rows that are to be looked at, and their bytes.
    todo: int
    todo_bytes: int
    #: Rows by fate.
    fates: dict[str, int]
    #: Objects that the filters leave out; they are no rows.
    outside: int
    #: Rows that are younger than the beginning of the listing.
    younger: int
    #: Of the shards' hashes.
    sha256: str
    #: Objects that an earlier run has looked at; they are no rows.
    known: int = 0
    #: Rows of which an earlier run has looked at another content.
    altered: int = 0
    notes: Notes = Notes()


def _schema() -> Any:
    pa = arrow()
    return pa.schema(
        [
            ("key", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string()),
            ("modified_s", pa.float64()), ("fate", pa.string()), ("version", pa.string()),
        ]
    )  # fmt: skip


class Listed(NamedTuple):
    """One object as a source of the manifest gives it."""

    key: str
    #: 0 if it is not known, unless the fate says that it is empty.
    size_bytes: int
    etag: str
    modified_s: float
    #: Empty, empty, skipped or deleted; `outside` if the filters leave it out; `known` if an earlier run had it.
    fate: str
    version: str = ""
    #: An earlier run has looked at another content of it.
    altered: bool = False


class Lister:
    """What a manifest is made from; see `buoy.batch.listing`."""

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects in the order of their keys: those after the key, or after so many of them."""
        raise NotImplementedError

    def notes(self) -> Notes:
        """What else there is to tell, once all objects were listed."""
        return Notes()


class _Shard:
    """One shard being written, a row group at a time; the one before is encoded meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor, counts: dict[str, int], began_s: float) -> None:
        self._out, self._schema = io.BytesIO(), _schema()
        self._writer = parquet().ParquetWriter(
            self._out, self._schema, compression="zstd", use_dictionary=["fate", "version"], column_encoding=_ENCODINGS
        )
        self._pool, self._counts, self._began_s = pool, counts, began_s
        self._writing: Future[None] | None = None
        #: Of the row group that is not full yet.
        self._batches: list[Any] = []
        self._rows = self._written = 0

    def fill(self, objects: Iterator[Listed], shard_rows: int) -> bool:
        """Take objects until it is full; `False` if they came to their end before."""
        while self._rows < shard_rows:
            group = min(GROUP_ROWS, shard_rows - self._written)
            wanted = min(_BATCH_ROWS, group - (self._rows - self._written))
            taken = list(islice(objects, wanted))
            self._counts["seen"] += len(taken)
            self._add(taken)
            if len(taken) < wanted:
                return False
            if self._rows - self._written == group:
                self._write()
        return True

    def close(self) -> bytes:
        if self._batches:
            self._write()
        if self._writing is not None:
            self._writing.result()
        self._writer.add_key_value_metadata({name: str(number) for name, number in self._counts.items()})
        self._writer.close()
        return self._out.getvalue()

    def _add(self, objects: Sequence[Listed]) -> None:
        columns: list[Any] = list(zip(*objects, strict=True))
        if columns and columns[_FATE].count("") < len(objects):
            columns = self._sort_out(objects, columns[_FATE])
        if not columns:
            return
        sizes, times = np.array(columns[1], np.int64), np.array(columns[3], np.float64)
        self._rows += len(sizes)
        self._counts["todo"] += columns[_FATE].count("")
        self._counts["todo_bytes"] += int(sizes.sum())
        self._counts["younger"] += int((times > self._began_s).sum())
        self._counts["altered"] += columns[-1].count(True)
        columns[1], columns[3] = sizes, times
        arrays = [_array(values, field.type) for values, field in zip(columns, self._schema, strict=False)]
        self._batches.append(arrow().record_batch(arrays, schema=self._schema))

    def _sort_out(self, objects: Sequence[Listed], fates: Sequence[str]) -> list[Any]:
        """Count what has a fate; the columns without the objects that are no rows."""
        for fate in (*_NO_ROWS, *_FATES):
            self._counts[fate] += fates.count(fate)
        self._counts["todo_bytes"] -= sum(each.size_bytes for each in objects if each.fate in _FATES)
        return list(zip(*(each for each in objects if each.fate not in _NO_ROWS), strict=True))

    def _write(self) -> None:
        table = arrow().Table.from_batches(self._batches, schema=self._schema)
        if self._writing is not None:
            self._writing.result()
        self._writing = self._pool.submit(self._writer.write_table, table, GROUP_ROWS)
        self._written = self._rows
        self._batches.clear()


def _array(values: Sequence[Any], kind: Any) -> Any:
    """Values as an Arrow array; those that are all empty cost nothing."""
    if isinstance(values, tuple) and not any(values):
        return arrow().repeat("", len(values))
    return arrow().array(values, kind)


def write_manifest(ledger: Ledger, lister: Lister, *, began_s: float, shard_rows: int = SHARD_ROWS) -> Index:
    """List the source into shards, from where an earlier attempt was killed; the index is written last.

    Args:
        ledger: of the run.
        lister: gives the objects.
        began_s: when the listing began, in seconds since 1970.
        shard_rows: of a full shard.

    Raises:
        StoreError: the source cannot be listed, or the ledger not be written.
    """
    while True:
        if (index := read_index(ledger)) is not None:
            return index
        try:
            return _write(ledger, lister, began_s, shard_rows)
        except _OvertakenError:  # another process lists the same source: go on from where it is
            continue


class _OvertakenError(Exception):
    """Another process has created the shard, with another content."""


def _write(ledger: Ledger, lister: Lister, began_s: float, shard_rows: int) -> Index:
    shards = sorted(each.key for each in ledger.names("manifest/shard-"))
    counts = dict.fromkeys(_COUNTED, 0)
    after, number, more = "", len(shards), True
    if shards:
        after, rows, known = _last_of(ledger.load(shards[-1]))
        counts |= known
        more = rows == shard_rows
    objects = lister.objects(after, counts["seen"])
    with ThreadPoolExecutor(1, thread_name_prefix="shard") as pool:
        while more:  # a shard that is not full, perhaps empty, says that the listing has come to its end
            shard = _Shard(pool, counts, began_s)
            more = shard.fill(objects, shard_rows)
            _create(ledger, number, shard.close())
            number += 1
    return _finish(ledger, number, counts, lister.notes())


def _create(ledger: Ledger, number: int, data: bytes) -> None:
    try:
        ledger.patiently(lambda: ledger.area.put(shard_key(number), data, create_only=True))
    except ExistsError:
        if ledger.load(shard_key(number)) != data:
            raise _OvertakenError from None
    failpoint.reach("coord.shard")


def _last_of(data: bytes) -> tuple[str, int, dict[str, int]]:
    """The last key of a shard, how many rows it has, and the counts up to there."""
    file = parquet().ParquetFile(arrow().BufferReader(data))
    groups = file.num_row_groups
    last = file.read_row_group(groups - 1, columns=["key"])["key"][-1].as_py() if groups else ""
    known = {name.decode(): value.decode() for name, value in file.metadata.metadata.items()}
    return last, file.metadata.num_rows, {name: int(known[name]) for name in _COUNTED if name in known}


def _finish(ledger: Ledger, shards: int, counts: dict[str, int], notes: Notes) -> Index:
    digests = [hashlib.sha256(ledger.load(shard_key(number))).hexdigest() for number in range(shards)]
    record = {
        "rows": counts["todo"] + sum(counts[fate] for fate in _FATES),
        "shards": shards,
        "todo": counts["todo"],
        "todo_bytes": counts["todo_bytes"],
        "fates": {fate: counts[fate] for fate in _FATES},
        "outside": counts["outside"],
        "known": counts["known"],
        "younger": counts["younger"],
        "altered": counts["altered"],
        "notes": notes._asdict(),
        "sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "shard_sha256": digests,
    }
    return _index(ledger.create(INDEX, record).record)


def read_index(ledger: Ledger) -> Index | None:
    """The index; `None` while the listing goes on."""
    record = ledger.read(INDEX)
    return _index(record) if record is not None else None


def _index(record: Record) -> Index:
    notes = Notes(**{**record.get("notes", {}), "told": tuple(record.get("notes", {}).get("told", ()))})
    return Index(**{name: record[name] for name in Index._fields if name in record} | {"notes": notes})


class ManifestRows:
    """Reads ranges of rows; the shard and the row group of the last range stay in memory."""

    def __init__(self, ledger: Ledger, shard_rows: int = SHARD_ROWS) -> None:
        self._ledger, self._shard_rows = ledger, shard_rows
        self._shard: tuple[int, Any] | None = None
        self._group: tuple[int, int, list[Row]] | None = None

    def read(self, start: int, stop: int) -> Sequence[Row]:
        """The rows from `start` to before `stop`."""
        rows: list[Row] = []
        while start < stop:
            first, group = self._group_of(start)
            part = group[start - first : stop - first]
            rows += part
            start += len(part)
        return rows

    def walk(self) -> Iterator[Row]:
        """All rows."""
        start = 0
        index = read_index(self._ledger)
        while index is not None and start < index.rows:
            first, group = self._group_of(start)
            yield from group[start - first :]
            start = first + len(group)

    def pins(self) -> Iterator[Pin]:
        """All rows, as far as it takes to know an object again."""
        index = read_index(self._ledger)
        for number in range(index.shards if index is not None else 0):
            file = parquet().ParquetFile(arrow().BufferReader(self._ledger.load(shard_key(number))))
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(Pin._fields), use_threads=False)
                yield from map(Pin, *(table[name].to_pylist() for name in Pin._fields))

    def _group_of(self, row: int) -> tuple[int, list[Row]]:
        number, inside = divmod(row, self._shard_rows)
        if self._shard is None or self._shard[0] != number:
            data = self._ledger.load(shard_key(number))
            self._shard = number, parquet().ParquetFile(arrow().BufferReader(data))
        group = inside // GROUP_ROWS
        if self._group is None or self._group[:2] != (number, group):
            first = number * self._shard_rows + group * GROUP_ROWS
            self._group = number, group, _rows(self._shard[1].read_row_group(group, use_threads=False), first)
        return number * self._shard_rows + group * GROUP_ROWS, self._group[2]


def _rows(table: Any, first: int) -> list[Row]:
    columns: Iterable[list[Any]] = (column.to_pylist() for column in table.columns)
    return [Row(first + number, *values) for number, values in enumerate(zip(*columns, strict=True))]
