"""An inventory that S3 makes of a bucket: `manifest.json` and the files with the objects that it names.

Source: "Amazon S3 Inventory" in the user guide of Amazon S3: keys in CSV are URL-encoded, a space as a plus sign;
in Parquet and ORC they are not. Where versions are included, `IsLatest` and `IsDeleteMarker` tell them apart.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct, field

from buoy.batch.list_file import BATCH_ROWS, Lines, Told, field_of
from buoy.batch.tables import arrow, parquet
from buoy.errors import UsageError

__all__ = ["OLD", "File", "Inventory", "read_file", "read_inventory"]

#: Said of an older version, or a delete marker.
OLD = "old"
_LARGEST_BYTES = 64 << 20


class File(Struct, frozen=True):
    """One of the files with objects."""

    key: str
    md5: str = field(name="MD5checksum")
    size: int = 0


class Inventory(Struct, frozen=True, rename="camel"):
    """What `manifest.json` says."""

    source_bucket: str
    file_format: str
    file_schema: str
    files: list[File]


def read_inventory(path: Path) -> Inventory | None:
    """The inventory whose manifest this is; `None` if it is another file."""
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"{") or path.stat().st_size > _LARGEST_BYTES:
            return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Inventory)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_file(inventory: Inventory, file: File, path: Path) -> Lines:
    """The lines of one of its files, each what it says, `OLD`, or what is wrong with it.

    Raises:
        UsageError: it is not the file that the inventory means, or cannot be read.
    """
    with path.open("rb") as data:
        if hashlib.file_digest(data, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != file.md5:
            raise UsageError(f"{file.key} is not what the inventory says (MD5 {file.md5})", "copy it again")
    try:
        yield from _lines(inventory, path)
    except (arrow().ArrowException, EOFError, OSError, csv.Error) as error:
        raise UsageError(f"{file.key} cannot be read as {inventory.file_format}: {error}", "copy it again") from error


def _lines(inventory: Inventory, path: Path) -> Lines:
    form = inventory.file_format.upper()
    if form == "CSV":
        names = [field_of(name) for name in inventory.file_schema.split(",")]
        rows: Iterator[Sequence[Any]] = _csv_rows(path)
    elif form in ("PARQUET", "ORC"):
        file = parquet().ParquetFile(path, pre_buffer=False) if form == "PARQUET" else _orc(path)
        names = [field_of(name) for name in (file.schema_arrow if form == "PARQUET" else file.schema).names]
        rows = _table_rows(file)
    else:
        raise UsageError(f"the inventory is in {inventory.file_format}", "have it made as CSV, Parquet or ORC")
    if not {"bucket", "key"} <= set(names):
        raise UsageError(f"the inventory has no keys, but {', '.join(names)}", "have it made again")
    for line, values in enumerate(rows, 1):
        if len(values) != len(names):
            yield line, f"has {len(values)} columns, and the inventory {len(names)}"
            continue
        yield line, _told(dict(zip(names, values, strict=True)), inventory.source_bucket, encoded=form == "CSV")


def _told(row: dict[str, Any], bucket: str, *, encoded: bool) -> Told | str:
    if row["bucket"] != bucket:
        return f"is about the bucket {row['bucket']}, the inventory about {bucket}"
    if _says(row.get("isdeletemarker")) or not _says(row.get("islatest", True)):
        return OLD
    key = unquote_plus(row["key"], errors="surrogateescape") if encoded else row["key"]
    return Told(key, row.get("size"), row.get("etag"), row.get("versionid"), row.get("lastmodifieddate"))


def _says(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _csv_rows(path: Path) -> Iterator[Sequence[Any]]:
    with gzip.open(path) as file, io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="") as text:
        yield from csv.reader(text)


def _orc(path: Path) -> Any:
    arrow()
    import pyarrow.orc

    return pyarrow.orc.ORCFile(path)


def _table_rows(file: Any) -> Iterator[Sequence[Any]]:
    if hasattr(file, "iter_batches"):
        batches = file.iter_batches(BATCH_ROWS, use_threads=False)
    else:
        batches = (file.read_stripe(number) for number in range(file.nstripes))
    for batch in batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
