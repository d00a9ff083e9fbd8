"""Where a run stands, read from its ledger: for the coordinator, and for whoever only wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from buoy.batch.clock import Clock
from buoy.batch.control import Order
from buoy.batch.eta import left_s
from buoy.batch.fin import Part, announce, read_parts
from buoy.batch.layout import Cell
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger, Record, tally
from buoy.batch.seal import Resolved, resolve
from buoy.batch.view import View

__all__ = ["Overview", "Progress"]


class Progress(NamedTuple):
    """Where a run stands."""

    order: Order
    rows: int
    rows_done: int
    cells: int
    cells_done: int
    #: Objects by status, and failed ones by class of error.
    counts: dict[str, int]
    classes: dict[str, int]
    #: Seconds that pilots spent on the cells that ended.
    worked_s: float
    #: The pilots whose heartbeats move.
    pilots: list[str]
    #: What keeps the coordinator from having more of them.
    waits: str = ""
    #: Within which time it ends in 8 of 10 cases.
    left_s: tuple[float, float] | None = None
    #: What each pilot said last.
    beats: Mapping[str, Record] = {}


class Overview:
    """The cells, and what became of those that ended; each `fin` is read once."""

    def __init__(self, ledger: Ledger, clock: Clock, lease_s: float) -> None:
        self._ledger = ledger
        self.view = View(ledger, LeaseWatch(clock, lease_s))
        self._fins: dict[Cell, list[Part]] = {}
        self._counts: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._worked_s, self._rows_done = 0.0, 0
        #: Rows and seconds of the attempts, as they were seen.
        self._paces: list[tuple[int, float]] = []

    def read(self, *, mend: bool) -> None:
        """Read the `fin` of every cell that the view says has ended since.

        Args:
            mend: announce the new cells of a split, should its splitter have died before it could.
        """
        view = self.view
        new = sorted(view.ended - self._fins.keys())
        for cell, record in zip(new, self._ledger.read_many([f"fin/{cell.id}" for cell in new]), strict=True):
            if record is None:  # listed, and lost since: it has to be done again
                view.ended.discard(cell)
                view.add(cell)
                continue
            parts = read_parts(record)
            self._fins[cell] = parts
            self._count(parts)
            unknown = [part for part in parts if part.attempt is None and view.add(part.cell)]
            if mend:
                announce(self._ledger, unknown)

    def resolve(self) -> Resolved:
        """How far the cells have come."""
        return resolve(self.view.planned or [], self._fins, self.view.voided)

    def progress(self, order: Order, rows: int, waits: str = "", beats: Mapping[str, Record] | None = None) -> Progress:
        """The figures."""
        view = self.view
        alive = view.watch.alive()
        return Progress(
            order,
            rows,
            self._rows_done,
            len(view.open) + len(view.ended),
            len(view.ended),
            self._counts,
            self._classes,
            self._worked_s,
            alive,
            waits,
            left_s(self._paces, rows - self._rows_done, len(alive)),
            beats or {},
        )

    def _count(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if (attempt := part.attempt) is not None:
                self._counts = tally([self._counts, attempt.counts])
                self._classes = tally([self._classes, attempt.classes])
                self._worked_s += attempt.seconds
                self._rows_done += part.stop - part.start
                self._paces.append((part.stop - part.start, attempt.seconds))
