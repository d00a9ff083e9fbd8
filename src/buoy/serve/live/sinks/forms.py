"""The files of a bucket sink, made from a part of the spool: JSON lines, CSV, Parquet.

The two tables have the columns of `buoy.outputs.table` and those of `FRAME_COLUMNS`: a row for each detection, a row
for each frame without any (`status` none), and a row for each gap (`status` gap, `captured` and `until` its begin and
end, `error` its reason). So effort can be counted, and no frame is not zero fish.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from buoy.errors import UsageError
from buoy.outputs import table
from buoy.results import Record, Result, decode_record
from buoy.serve.live.sinks.seen import Gap
from buoy.streams.spec import StreamSpec

__all__ = ["COLUMNS", "FRAME_COLUMNS", "Form", "open_form"]

FRAME_COLUMNS = ("stream", "station", "camera", "frame", "captured", "until", "position_s", "flags", "track_id")
COLUMNS = (*table.COLUMNS, *(column for column in FRAME_COLUMNS if column not in table.COLUMNS))

_Row = dict[str, Any]
_GAP = b'{"schema":"buoy.gap/1"'
#: Rows that are held in memory; also those of a row group of Parquet.
_BATCH = 10_000


class Form(NamedTuple):
    """One kind of file."""

    suffix: str
    #: Makes the file at the second path of the part at the first, tells how many lines it could not read;
    #: absent where a part is such a file already.
    make: Callable[[Path, Path, StreamSpec], int] | None = None


def open_form(name: str) -> Form:
    """The kind of file that a sink's `format` names.

    Raises:
        UsageError: it needs an extra that is not installed.
    """
    if name == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("pyarrow, which writes Parquet, is not installed", "pip install 'buoy[tables]'")
    return {"jsonl": Form(".jsonl"), "csv": Form(".csv", _csv), "parquet": Form(".parquet", _parquet)}[name]


class _Rows:
    """The rows of a part, one after the other."""

    def __init__(self, part: Path, spec: StreamSpec) -> None:
        self.unreadable = 0
        self._part = part
        self._common = {"stream": spec.name, "station": spec.station, "camera": spec.camera}

    def __iter__(self) -> Iterator[_Row]:
        with self._part.open("rb") as lines:
            for line in lines:
                try:
                    read = msgspec.json.decode(line, type=Gap) if line.startswith(_GAP) else decode_record(line)
                except msgspec.MsgspecError:  # a power cut can leave what was never written
                    self.unreadable += 1
                    continue
                yield from self._gap(read) if isinstance(read, Gap) else self._record(read)

    def _gap(self, gap: Gap) -> Iterator[_Row]:
        times = {"captured": gap.begin, "until": gap.end}
        yield {**self._common, "status": "gap", **times, "error": gap.reason}

    def _record(self, record: Record) -> Iterator[_Row]:
        found = [] if not isinstance(record, Result) or record.detections is UNSET else record.detections
        tracks = [{} if each.track_id is UNSET else {"track_id": each.track_id} for each in found] or [{}]
        common: _Row = dict(self._common)
        if (frame := record.input.frame) is not UNSET:
            common |= {"frame": frame.number, "captured": frame.captured, "flags": frame.flags}
            common |= {} if frame.position_s is UNSET else {"position_s": frame.position_s}
        for row, track in zip(table.rows(record), tracks, strict=True):
            yield {**row, **common, **track}


def _csv(part: Path, target: Path, spec: StreamSpec) -> int:
    rows = _Rows(part, spec)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for row in rows:
            row["flags"] = " ".join(row.get("flags", ()))
            writer.writerow([row.get(column, "") for column in COLUMNS])
    return rows.unreadable


def _parquet(part: Path, target: Path, spec: StreamSpec) -> int:
    import pyarrow
    from pyarrow import parquet

    schema = _schema(pyarrow)
    rows = _Rows(part, spec)
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            columns = {name: [_cell(row.get(name, ""), name) for row in batch] for name in schema.names}
            writer.write_table(pyarrow.table(columns, schema=schema))
    return rows.unreadable


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    several = iter(rows)
    while batch := list(islice(several, _BATCH)):
        yield batch


def _schema(pyarrow: Any) -> Any:
    moment = pyarrow.timestamp("ms", tz="UTC")
    kinds = {
        **dict.fromkeys(("class_id", "width", "height"), pyarrow.int32()),
        **dict.fromkeys(("score", "x1", "y1", "x2", "y2", "position_s"), pyarrow.float64()),
        **dict.fromkeys(("aphia_id", "frame", "track_id"), pyarrow.int64()),
        **dict.fromkeys(("captured", "until"), moment),
        "flags": pyarrow.list_(pyarrow.string()),
    }
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])


def _cell(value: Any, column: str) -> Any:
    """What stands in the table; a cell that would be empty in CSV is null."""
    if value == "":
        return None
    if column in ("captured", "until"):
        return datetime.fromisoformat(value)
    return int(value) if column == "aphia_id" else value
