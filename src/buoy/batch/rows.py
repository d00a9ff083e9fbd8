"""Rows of the result table: what the `buoy.result/1` records say.

One row for each object found, one for a picture without any, and one for an object that has no result, with the
reason. What varies between two runs is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from buoy.batch.manifest import Row
from buoy.batch.pattern import KeyPattern
from buoy.batch.pilot import Done
from buoy.batch.tables import arrow, write_table
from buoy.errors import BuoyError, ChangedError, MissingError
from buoy.results import Failure, ModelInfo, Record, Result

__all__ = ["FAILURE_COLUMNS", "Liner", "encode", "schema"]

_STRING, _INT, _FLOAT = "string", "int64", "double"
_COLUMNS = {
    "row": _INT, "key": _STRING, "item": _STRING, "status": _STRING,
    "time": _STRING, "station": _STRING, "camera": _STRING,
    "label": _STRING, "class_id": _INT, "score": _FLOAT, "x1": _FLOAT, "y1": _FLOAT, "x2": _FLOAT, "y2": _FLOAT,
    "taxon": _STRING, "findings": _STRING,
    "width": _INT, "height": _INT, "size_bytes": _INT, "sha256": _STRING, "etag": _STRING,
    "model": _STRING, "version": _STRING, "weights_sha256": _STRING, "maturity": _STRING, "task": _STRING,
    "error": _STRING, "message": _STRING, "hint": _STRING, "key_url": _STRING,
}  # fmt: skip
FAILURE_COLUMNS = ("row", "key", "item", "status", "error", "message", "hint", "size_bytes", "etag", "key_url")
_KNOWN = {"schema", "input", "model", "task", "parameters", "run", "detections"}


def schema() -> Any:
    """The Arrow schema of the rows."""
    return arrow().schema([(name, kind) for name, kind in _COLUMNS.items()])


def encode(done: Sequence[Done]) -> bytes:
    """The rows of an attempt as Parquet."""
    lines = [line for each in done for line in each.lines]
    columns = [arrow().array([line.get(name) for line in lines], kind) for name, kind in _COLUMNS.items()]
    return write_table(arrow().table(columns, schema=schema()))


class Liner:
    """Makes rows for the objects of one run."""

    def __init__(self, model: ModelInfo, pattern: KeyPattern) -> None:
        self._model, self._pattern = model, pattern

    def without(self, row: Row, status: str, error: BuoyError | None = None) -> Done:
        """An object that has no result: changed, deleted, empty, skipped, failed."""
        line = {**self._common(row, self._model), "status": status, "size_bytes": row.size_bytes}
        if (why := error or _why(row.key, status)) is not None:
            told = why.record()
            line |= {"error": told["class"], "message": told["message"], "hint": told["hint"]}
        # What is not there as it was is no failure: many of them do not pause the run.
        return Done(row.row, status, line.get("error", "") if status == "failed" else "", [line])

    def done(self, row: Row, records: Iterable[tuple[str, Record]]) -> Done:
        """An object that was looked at: its items in their order, each with its name inside the object.

        It has failed when nothing in it could be read; else what failed in it is in its rows.
        """
        lines: list[dict[str, Any]] = []
        errors, fine = [], 0
        for item, record in records:
            if isinstance(record, Failure):
                errors.append(record.error.class_)
            else:
                fine += 1
            lines += self._lines(row, item, record)
        status = "ok" if fine or not errors else "failed"
        return Done(row.row, status, errors[0] if status == "failed" else "", lines)

    def _lines(self, row: Row, item: str, record: Record) -> Iterator[dict[str, Any]]:
        info = record.input
        common = {
            **self._common(row, record.model),
            "item": item,
            "size_bytes": info.size_bytes,
            "sha256": info.sha256,
            "width": info.width or None,
            "height": info.height or None,
        }
        if isinstance(record, Failure):
            error = record.error
            yield common | {"status": "failed", "error": error.class_, "message": error.message, "hint": error.hint}
            return
        yield from _findings(record, common | {"status": "ok", "task": record.task})

    def _common(self, row: Row, model: ModelInfo) -> dict[str, Any]:
        place = self._pattern.read(row.key)
        return {
            "row": row.row,
            "key": row.key,
            "item": "",
            "time": place.time or None,
            "station": place.station or None,
            "camera": place.camera or None,
            "etag": row.etag,
            "model": model.name,
            "version": model.version,
            "weights_sha256": model.weights_sha256,
            "maturity": model.maturity,
            "key_url": quote(row.key),
        }


def _why(key: str, status: str) -> BuoyError | None:
    """Why there is no result, in words that are the same each time, whatever the store has said."""
    if status == "changed":
        return ChangedError(f"{key} has changed since it was listed", "buoy batch retry looks at it as it is now")
    if status == "deleted":
        return MissingError(f"{key} is not there any more", "bring it back, then: buoy batch retry")
    return None


def _findings(result: Result, common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    other = {name: value for name, value in msgspec.to_builtins(result).items() if name not in _KNOWN}
    if other:  # findings that are no boxes stay as they are, in one row
        common = common | {"findings": json.dumps(other, ensure_ascii=False, sort_keys=True)}
    if not result.detections:
        yield common
        return
    for found in result.detections:
        yield common | {
            "label": found.label,
            "class_id": found.class_id,
            "score": found.score,
            **dict(zip(("x1", "y1", "x2", "y2"), found.box, strict=True)),
            "taxon": None if found.taxon is UNSET else json.dumps(found.taxon, sort_keys=True),
        }
