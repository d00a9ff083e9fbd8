"""Reading lists of objects line by line: CSV, JSON lines, Parquet, each also with gzip around it."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from buoy.batch.tables import arrow, parquet
from buoy.errors import UsageError

__all__ = ["BATCH_ROWS", "Told", "field_of", "read_list", "told_from"]

BATCH_ROWS = 10_000
#: What a list may call its columns, without case and punctuation; of several the first counts.
_FIELDS = {
    "key": ("key", "path", "filepath", "name", "file", "filename", "object", "objectkey", "uri", "url", "s3uri"),
    "size": ("size", "sizebytes", "bytes", "contentlength", "length"),
    "etag": ("etag",),
    "version": ("versionid", "version"),
    "modified": ("modified", "lastmodified", "lastmodifieddate", "modifieds", "modifiedat", "mtime"),
}
_BOM = b"\xef\xbb\xbf"
_HINT = "name the columns in the first line, such as: key,size,etag"


class Told(NamedTuple):
    """What one line says, as it stands there; `None` or empty where it says nothing."""

    key: Any
    size: Any = None
    etag: Any = None
    version: Any = None
    modified: Any = None


#: A line and what it says, or what is wrong with it.
Lines = Iterator[tuple[int, Told | str]]


def read_list(path: Path, name: str) -> Lines:
    """The lines of a list, from 1; of a Parquet file its rows.

    Args:
        path: the file.
        name: what the person calls it.

    Raises:
        UsageError: it is no list, or has no column with keys.
    """
    with path.open("rb") as plain:
        magic = plain.peek(4)[:4]
        if magic == b"PAR1":
            yield from _read_parquet(path, name)
            return
        file = gzip.GzipFile(fileobj=plain) if magic[:2] == b"\x1f\x8b" else plain
        try:
            begin = file.peek(1024).removeprefix(_BOM).lstrip()
            yield from _read_json(file) if begin[:1] == b"{" else _read_csv(file, name)
        except (EOFError, OSError, zlib.error) as error:
            raise UsageError(f"{name} breaks off: {error}", "make or copy it again") from error


def field_of(name: str) -> str:
    """A column's name without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def told_from(columns: dict[str, Sequence[Any]]) -> Iterable[Told]:
    """Lines from columns of the same length."""
    length = len(columns["key"])
    return map(Told, *(columns.get(field, [None] * length) for field in Told._fields))


def _places(names: Iterable[str], what: str) -> dict[str, str]:
    """Which column has which field.

    Raises:
        UsageError: none has keys.
    """
    known = {field_of(name): name for name in names}
    if {"weightssha256", "keyurl"} <= known.keys():  # a table of results: the version is that of the model
        known.pop("version", None)
    found = {field: known[each] for field, words in _FIELDS.items() for each in reversed(words) if each in known}
    if "key" not in found:
        shown = ", ".join(list(known.values())[:5])[:80]
        raise UsageError(f"{what}: no column is called key (or path, name, file, url): there is {shown!r}", _HINT)
    return found


def _read_csv(file: Iterable[bytes], name: str) -> Lines:
    lines = (line.decode("utf-8", "surrogateescape") for line in file)
    first = next(lines, "").removeprefix("\ufeff")
    if not first.strip():
        raise UsageError(f"{name} is empty", _HINT)
    separator = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=separator))
    places = {field: header.index(column) for field, column in _places(header, name).items()}
    order = [places.get(field) for field in Told._fields]
    reader, line = csv.reader(lines, delimiter=separator), 2
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"cannot be read as CSV ({error}): is there a quote that is not closed?"
        else:
            if len(cells) == len(header):
                yield line, Told(*(None if place is None else cells[place] for place in order))
            elif cells:
                far = f", and goes on to line {reader.line_num + 1:,}" if reader.line_num >= line else ""
                hint = "put keys with separators or quotes in them in quotes"
                yield line, f"has {len(cells)} columns, and the first line {len(header)}{far}: {hint}"
        line = reader.line_num + 2


def _read_json(file: Iterable[bytes]) -> Lines:
    fields: dict[str, str] = {}
    words = {word: field for field, known in _FIELDS.items() for word in known}
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            found = msgspec.json.decode(text.removeprefix(_BOM) if line == 1 else text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield line, f"is no JSON: {error}"
            continue
        if isinstance(found, dict):
            for name in found.keys() - fields.keys():
                fields[name] = words.get(field_of(name), "")
            told = {fields[name]: value for name, value in found.items() if fields[name]}
            yield line, Told(**told) if "key" in told else 'has no key: write {"key": "..."}'
        else:
            yield line, 'is no object: write {"key": "..."}'


def _read_parquet(path: Path, name: str) -> Lines:
    try:
        file = parquet().ParquetFile(path, pre_buffer=False)
        places = _places(file.schema_arrow.names, name)
        batches = file.iter_batches(BATCH_ROWS, columns=list(places.values()), use_threads=False)
        columns = ({field: batch[name].to_pylist() for field, name in places.items()} for batch in batches)
        yield from enumerate((told for each in columns for told in told_from(each)), 1)
    except arrow().ArrowException as error:
        raise UsageError(f"{name} cannot be read as Parquet: {error}", "make or copy it again") from error
