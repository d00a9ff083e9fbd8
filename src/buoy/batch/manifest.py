"""The manifest: every object of the source as a row, in Parquet shards, written as the listing goes.

Nothing is sorted or held: memory is that of one row group. A shard is created when it is full, and its last key is
where a listing that was killed goes on. Row numbers run through the shards, all of which but the last are full.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from buoy.batch import failpoint
from buoy.batch.layout import INDEX, shard_key
from buoy.batch.ledger import Ledger, Record
from buoy.batch.tables import arrow, parquet
from buoy.errors import ExistsError

__all__ = ["SHARD_ROWS", "Index", "ManifestRows", "Row", "read_index", "write_manifest"]

SHARD_ROWS, GROUP_ROWS = 250_000, 10_000


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
    #: Empty if it is to be looked at, else what it is: empty, skipped.
    fate: str = ""


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


def _schema() -> Any:
    pa = arrow()
    return pa.schema(
        [
            ("key", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string()),
            ("modified_s", pa.float64()), ("fate", pa.string()),
        ]
    )  # fmt: skip


class _Shard:
    """One shard being written, a row group at a time."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._writer = parquet().ParquetWriter(
            self._out, _schema(), compression="zstd", use_dictionary=["fate"], column_encoding=_ENCODINGS
        )
        self._group: list[Row] = []
        self.rows = 0

    def add(self, row: Row) -> None:
        self._group.append(row)
        self.rows += 1
        if len(self._group) == GROUP_ROWS:
            self._flush()

    def close(self, counts: dict[str, int]) -> bytes:
        if self._group:
            self._flush()
        self._writer.add_key_value_metadata({name: str(number) for name, number in counts.items()})
        self._writer.close()
        return self._out.getvalue()

    def _flush(self) -> None:
        columns = list(zip(*self._group, strict=True))[1:]
        schema = _schema()
        arrays = [arrow().array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        self._writer.write_table(arrow().table(arrays, schema=schema))
        self._group.clear()


class Listed(NamedTuple):
    """One object as a source of the manifest gives it."""

    key: str
    size_bytes: int
    etag: str
    modified_s: float
    #: Empty, empty or skipped; `outside` if the filters leave it out.
    fate: str


class Lister:
    """What a manifest is made from; see `buoy.batch.listing`."""

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects in a fixed order: those after the key, or after so many of them."""
        raise NotImplementedError


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
    counts = {"seen": 0, "outside": 0, "younger": 0, "todo": 0, "todo_bytes": 0, "empty": 0, "skipped": 0}
    after, number, ended = "", len(shards), False
    if shards:
        after, rows, counts = _last_of(ledger.load(shards[-1]))
        ended = rows < shard_rows
    shard = _Shard()
    for each in () if ended else lister.objects(after, counts["seen"]):
        counts["seen"] += 1
        if each.fate == "outside":
            counts["outside"] += 1
            continue
        counts["younger"] += each.modified_s > began_s
        counts[each.fate or "todo"] += 1
        counts["todo_bytes"] += 0 if each.fate else each.size_bytes
        shard.add(Row(0, *each))
        if shard.rows == shard_rows:
            _create(ledger, number, shard.close(counts))
            number, shard = number + 1, _Shard()
    if not ended:  # a shard that is not full, perhaps empty, says that the listing has come to its end
        _create(ledger, number, shard.close(counts))
        number += 1
    return _finish(ledger, number, counts)


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
    names = ("seen", "outside", "younger", "todo", "todo_bytes", "empty", "skipped")
    return last, file.metadata.num_rows, {name: int(known[name]) for name in names}


def _finish(ledger: Ledger, shards: int, counts: dict[str, int]) -> Index:
    digests = [hashlib.sha256(ledger.load(shard_key(number))).hexdigest() for number in range(shards)]
    record = {
        "rows": counts["todo"] + counts["empty"] + counts["skipped"],
        "shards": shards,
        "todo": counts["todo"],
        "todo_bytes": counts["todo_bytes"],
        "fates": {"empty": counts["empty"], "skipped": counts["skipped"]},
        "outside": counts["outside"],
        "younger": counts["younger"],
        "sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "shard_sha256": digests,
    }
    return _index(ledger.create(INDEX, record).record)


def read_index(ledger: Ledger) -> Index | None:
    """The index; `None` while the listing goes on."""
    record = ledger.read(INDEX)
    return _index(record) if record is not None else None


def _index(record: Record) -> Index:
    return Index(**{name: record[name] for name in Index._fields})


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
