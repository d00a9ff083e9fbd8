"""The results: what the seal names, in the order of the manifest, in bounded memory; the same seal, the same bytes.

Rows are gathered into groups of a fixed size, so the files do not even tell how the work was divided: an undisturbed
run and one that was killed a hundred times give the same files.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from buoy import machine
from buoy.batch.area import Area
from buoy.batch.bases import FAILED
from buoy.batch.ledger import Ledger
from buoy.batch.overlay import tables_of
from buoy.batch.rows import FAILURE_COLUMNS, schema
from buoy.batch.seal import Seal
from buoy.batch.spec import Base
from buoy.batch.tables import arrow, parquet

__all__ = ["File", "merge", "span_of"]

_GROUP_ROWS = 25_000


class File(NamedTuple):
    """A file of the results."""

    name: str
    size_bytes: int
    sha256: str
    rows: int


def merge(ledger: Ledger, seal: Seal, results: Area, base: Base | None = None) -> list[File]:
    """Write results and failures, each as Parquet and CSV; those of a retry with what it has not done again.

    Raises:
        StoreError: an attempt is not what was sealed.
    """
    with tempfile.TemporaryDirectory(prefix="buoy-merge-") as folder:
        outputs = [_Output(Path(folder), "results", schema()), _Output(Path(folder), "failures", _failure_schema())]
        for table in tables_of(ledger, seal, base):
            outputs[0].add(table)
            outputs[1].add(_failures(table))
        files = [file for output in outputs for file in output.close()]
        for file in files:
            ledger.patiently(lambda name=file.name: results.put(name, Path(folder) / name))  # type: ignore[misc]
    return files


def span_of(results: Area) -> tuple[str, str]:
    """The first and the last time of a result set, from its statistics; empty if its keys tell none."""
    size_bytes = results.stat("results.parquet").size_bytes
    tail = results.get("results.parquet", start=max(0, size_bytes - (4 << 20)))
    metadata = parquet().read_metadata(arrow().BufferReader(tail))
    column = schema().get_field_index("time")
    groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    known = [each for each in groups if each is not None and each.has_min_max]
    return (min(each.min for each in known), max(each.max for each in known)) if known else ("", "")


def _failure_schema() -> Any:
    return arrow().schema([schema().field(name) for name in FAILURE_COLUMNS])


def _failures(table: Any) -> Any:
    import pyarrow.compute as compute

    return table.filter(compute.is_in(table["status"], arrow().array(FAILED))).select(FAILURE_COLUMNS)


class _Output:
    """One table, as Parquet and as CSV."""

    def __init__(self, folder: Path, name: str, columns: Any) -> None:
        import pyarrow.csv

        self._names = [f"{name}.parquet", f"{name}.csv"]
        self._folder, self._schema = folder, columns
        # No clock and no host in it: the writer's version is all that could differ.
        self._parquet = parquet().ParquetWriter(folder / self._names[0], columns, compression="zstd")
        self._csv = pyarrow.csv.CSVWriter(str(folder / self._names[1]), columns)
        self._waiting: list[Any] = []
        self._rows = self._total = 0

    def add(self, table: Any) -> None:
        self._waiting.append(table)
        self._rows += table.num_rows
        self._total += table.num_rows
        while self._rows >= _GROUP_ROWS:
            whole = arrow().concat_tables(self._waiting)
            self._write(whole.slice(0, _GROUP_ROWS))
            self._waiting = [whole.slice(_GROUP_ROWS)]
            self._rows -= _GROUP_ROWS

    def close(self) -> list[File]:
        if self._rows or not self._total:
            self._write(arrow().concat_tables(self._waiting) if self._waiting else self._schema.empty_table())
        self._parquet.close()
        self._csv.close()
        return [self._file(name) for name in self._names]

    def _write(self, table: Any) -> None:
        table = table.cast(self._schema).combine_chunks()
        self._parquet.write_table(table, row_group_size=_GROUP_ROWS)
        self._csv.write_table(table)
        # Attempts come from several threads and leave holes in their heaps, which would grow with the run.
        machine.give_back()
        arrow().default_memory_pool().release_unused()

    def _file(self, name: str) -> File:
        path = self._folder / name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(name, path.stat().st_size, digest, self._total)
