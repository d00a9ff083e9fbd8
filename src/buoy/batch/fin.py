"""How a cell ended: in parts that tile it, each with the attempt that covers it, or to be done as a cell of its own.

Commit and split are one record under one key, so a cell can never be both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from buoy.batch.layout import Cell
from buoy.batch.ledger import Created, Ledger, Record

__all__ = ["Attempt", "Part", "announce", "commit", "halves", "read_parts", "split"]


class Attempt(Struct, frozen=True, kw_only=True):
    """The stored rows of a range, and the proof of them."""

    key: str
    etag: str
    sha256: str
    size_bytes: int
    #: Objects by status.
    counts: dict[str, int] = {}
    #: Failed objects by class of error.
    classes: dict[str, int] = {}
    #: Rows of the table; an object may have many, but has one at least.
    lines: int = 0
    seconds: float = 0.0
    pilot: str = ""


class Part(Struct, frozen=True):
    """A range of a cell that has ended."""

    start: int
    stop: int
    #: Absent if a new cell has to do it.
    attempt: Attempt | None = None

    @property
    def cell(self) -> Cell:
        """The range as a cell."""
        return Cell(self.start, self.stop)


def commit(ledger: Ledger, cell: Cell, parts: Sequence[Part]) -> bool:
    """End a cell; `False` if another has ended it first. New cells are announced.

    The parts tile the cell; none may be the whole cell without an attempt.
    """
    assert parts[0].start == cell.start
    assert parts[-1].stop == cell.stop
    made: Created = ledger.create(f"fin/{cell.id}", {"parts": msgspec.to_builtins(list(parts))})
    announce(ledger, read_parts(made.record))
    return made.won


def announce(ledger: Ledger, parts: Sequence[Part]) -> None:
    """Tell all pilots of the new cells of a split; harmless if it is done again, or lost."""
    for part in parts:
        if part.attempt is None:
            ledger.create(f"new/{part.cell.id}", {})


def read_parts(record: Record) -> list[Part]:
    """The parts of a `fin` record."""
    parts: Any = record["parts"]
    return msgspec.convert(parts, list[Part])


def split(cell: Cell, stop: int, attempt: Attempt) -> list[Part]:
    """The cell's beginning up to row `stop` is done, the rest is a new cell."""
    return [Part(cell.start, stop, attempt), Part(stop, cell.stop)]


def halves(cell: Cell) -> list[Part]:
    """Two new cells."""
    middle = (cell.start + cell.stop) // 2
    return [Part(cell.start, middle), Part(middle, cell.stop)]
