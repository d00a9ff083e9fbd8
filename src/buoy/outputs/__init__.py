"""What is written of results: a file for each input, or one table for many.

Each format is a pure function in a module of its own; this one knows their names, suffixes and media types,
and writes files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from buoy.engine import Outcome
from buoy.errors import StoreError, UsageError, as_buoy_error
from buoy.image import Pixels
from buoy.outputs import coco, drawn, obsea, table
from buoy.results import Record, Result, encode_record

__all__ = ["COLLECTED", "ERROR_SUFFIX", "FORMATS", "Collected", "Format", "check_formats", "save", "write"]

ERROR_SUFFIX = ".error.json"

# mkstemp makes private files; what we write has the mode that open() would give. It can only be read by setting it.
os.umask(_UMASK := os.umask(0o077))


class Format(NamedTuple):
    """One way to write one result: `<input name><suffix>`."""

    suffix: str
    encode: Callable[[Result, Pixels | None], bytes]
    #: Whether `encode` needs the picture; the engine must then keep pixels.
    draws: bool = False


class Collected(NamedTuple):
    """One way to write many records as one document."""

    suffix: str
    media_type: str
    encode: Callable[[Iterable[Record]], Iterable[bytes]]


FORMATS: dict[str, Format] = {
    "json": Format(".json", lambda result, _: encode_record(result)),
    "csv": Format(".csv", lambda result, _: b"".join(table.encode([result]))),
    "coco": Format(".coco.json", lambda result, _: b"".join(coco.encode([result]))),
    "obsea": Format(".obsea.json", lambda result, _: obsea.encode(result)),
    "drawn": Format(".drawn.jpg", drawn.encode, draws=True),
}

COLLECTED: dict[str, Collected] = {
    "json": Collected(".jsonl", "application/jsonl", lambda records: (_line(record) for record in records)),
    "csv": Collected(".csv", "text/csv", table.encode),
    "coco": Collected(".coco.json", "application/json", coco.encode),
}


def check_formats(names: Sequence[str]) -> list[str]:
    """The names, if all are known.

    Raises:
        UsageError: one is not.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(f"unknown output format: {', '.join(unknown) or 'none given'}", f"known: {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


def write(outcome: Outcome, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write the files of one input below `folder`: one for each format, or its error record.

    Names that contain `/` go into sub-folders.

    Raises:
        StoreError: a file cannot be written (disk full, no permission); no part of it stays.
    """
    record = outcome.record
    if not isinstance(record, Result):
        return [save(folder / f"{record.input.name}{ERROR_SUFFIX}", encode_record(record))]
    return [
        save(folder / f"{record.input.name}{FORMATS[name].suffix}", FORMATS[name].encode(record, outcome.pixels))
        for name in formats
    ]


def save(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all.

    Raises:
        StoreError: it cannot be written; nothing stays of it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(data)
            os.chmod(part, 0o666 & ~_UMASK)
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        told = as_buoy_error(error, f"writing {path}")
        raise StoreError(told.message, told.hint) from error
    return path


def _line(record: Record) -> bytes:
    return msgspec.json.encode(record) + b"\n"
