"""Results as CSV: a row for each object, and a row for each picture without any, so that effort can be counted.

UTF-8, RFC 4180 quoting, shortest numbers that read back the same. Columns are never reordered.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import UNSET

from buoy.results import Failure, Record, Result

__all__ = ["COLUMNS", "encode", "rows"]

COLUMNS = (
    "name", "status", "label", "class_id", "score", "x1", "y1", "x2", "y2", "aphia_id", "width", "height",
    "sha256", "model", "version", "weights_sha256", "maturity", "error",
)  # fmt: skip


def encode(records: Iterable[Record]) -> Iterator[bytes]:
    """A header and the rows, in pieces, so that any number of records passes in bounded memory."""
    yield _line(COLUMNS)
    for record in records:
        for row in rows(record):
            yield _line([row.get(column, "") for column in COLUMNS])


def rows(record: Record) -> Iterator[dict[str, Any]]:
    """The rows of one record; `status` is found, none or failed."""
    common = {
        "name": record.input.name,
        "width": record.input.width or "",
        "height": record.input.height or "",
        "sha256": record.input.sha256,
        "model": record.model.name,
        "version": record.model.version,
        "weights_sha256": record.model.weights_sha256,
        "maturity": record.model.maturity,
    }
    if isinstance(record, Failure):
        yield common | {"status": "failed", "error": record.error.message}
        return
    yield from _findings(record, common)


def _findings(result: Result, common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not result.detections:
        yield common | {"status": "none"}
        return
    for found in result.detections:
        taxon = {} if found.taxon is UNSET else found.taxon
        yield common | {
            "status": "found",
            "label": found.label,
            "class_id": found.class_id,
            "score": found.score,
            **dict(zip(("x1", "y1", "x2", "y2"), found.box, strict=True)),
            "aphia_id": taxon.get("aphia_id", ""),
        }


def _line(values: Iterable[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().encode()
