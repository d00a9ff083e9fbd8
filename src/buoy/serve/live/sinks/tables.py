"""Makes a table of a part of the spool: `python -m buoy.serve.live.sinks.tables FORMAT PART <SPEC >TABLE`.

A process of its own, of low priority: what tables need (OpenCV, pyarrow) would weigh 60 MB in the process that
answers requests, and making them would hold up its loop. stderr gets one line of JSON: {"unreadable": n}, the number of
lines that could not be read, or, with exit code 1, the error's record with `retry`.

CSV and Parquet have the columns of `buoy.outputs.table` and those of `FRAME_COLUMNS`: a row for each detection, a row
for each frame without any (`status` none), and a row for each gap (`status` gap, `captured` and `until` its begin and
end, `error` its reason). So effort can be counted, and no frame is not zero fish.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec
from msgspec import UNSET

from buoy.errors import as_buoy_error
from buoy.outputs import table
from buoy.results import Record, Result, decode_record
from buoy.serve.live.sinks.seen import Gap
from buoy.streams.spec import StreamSpec, read_spec

__all__ = ["COLUMNS", "FRAME_COLUMNS", "MAKERS", "main"]

FRAME_COLUMNS = ("stream", "station", "camera", "frame", "captured", "until", "position_s", "flags", "track_id")
COLUMNS = (*table.COLUMNS, *(column for column in FRAME_COLUMNS if column not in table.COLUMNS))

_Row = dict[str, Any]
_GAP = b'{"schema":"buoy.gap/1"'
#: Rows that are held in memory; also those of a row group of Parquet.
_BATCH = 10_000


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


def _csv(rows: _Rows, target: BinaryIO) -> None:
    text = io.TextIOWrapper(target, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        row["flags"] = " ".join(row.get("flags", ()))
        writer.writerow([row.get(column, "") for column in COLUMNS])
    text.flush()
    text.detach()


def _parquet(rows: _Rows, target: BinaryIO) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = _schema(pyarrow)
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            columns = {name: [_cell(row.get(name, ""), name) for row in batch] for name in schema.names}
            writer.write_table(pyarrow.table(columns, schema=schema))


MAKERS = {"csv": _csv, "parquet": _parquet}


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


def main(form: str, part: str) -> NoReturn:
    """Make the table on stdout, and end."""
    os.nice(10)
    rows = _Rows(Path(part), read_spec(sys.stdin.buffer.read()))
    said: dict[str, Any]
    try:
        MAKERS[form](rows, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:  # such as a full disk; anything else is a fault, and shows where
        told = as_buoy_error(error, "the table of a part")
        code, said = 1, {**told.record(), "retry": told.retry}
    else:
        code, said = 0, {"unreadable": rows.unreadable}
    sys.stderr.write(msgspec.json.encode(said).decode() + "\n")
    sys.stderr.flush()
    os._exit(code)  # a buffer that the disk refuses would be written once more


if __name__ == "__main__":
    main(*sys.argv[1:])
