"""The coordinator: starts pilots, watches, and seals when every row is covered. Killing it costs nothing.

Everything that it knows is in the ledger, so the next one goes on at once: it takes the next number of the chain
`coord/`, and whoever held a lower one steps down. Until it does, two coordinators only create the same things.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from buoy.batch import failpoint
from buoy.batch.clock import Clock
from buoy.batch.control import Control, Order
from buoy.batch.engines import PilotEngine
from buoy.batch.fin import Part, announce, read_parts
from buoy.batch.layout import DONE, Cell, chain_key
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger, tally
from buoy.batch.pilot import Ending, Pace
from buoy.batch.seal import Leaf, Seal, check_tiles, lost, make_seal, read_seal, resolve
from buoy.batch.view import View

__all__ = ["Coordinator", "Progress"]


class Progress(NamedTuple):
    """Where the run stands, by what this coordinator has read."""

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
    pilots: list[str]


class Coordinator:
    """See the module.

    Args:
        engine: starts pilots.
        rows: of the manifest.
        finish: merges what the seal says and writes the results; what it gives becomes `done.json`.
        show: is told the progress at every look.
        look_s: between two looks.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        random: Random,
        engine: PilotEngine,
        *,
        name: str,
        rows: int,
        pace: Pace,
        finish: Callable[[Seal], dict[str, Any]],
        show: Callable[[Progress], None] = lambda _: None,
        look_s: float = 2.0,
    ) -> None:
        self.name = name
        self._ledger, self._clock, self._random, self._engine = ledger, clock, random, engine
        self._row_count, self._finish, self._show, self._look_s = rows, finish, show, look_s
        self._control = Control(ledger)
        self._view = View(ledger, LeaseWatch(clock, pace.lease_s))
        self._fins: dict[Cell, list[Part]] = {}
        self._epoch = 0
        self._counts: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._worked_s, self._rows_done = 0.0, 0

    def run(self) -> Ending:
        """Bring the run to an end, or stand aside for a newer coordinator, or stop because it is paused.

        Raises:
            StoreError: the ledger cannot be read or written, or is damaged.
        """
        self._take_over()
        while True:
            order = self._control.look()
            if self._ledger.read(chain_key("coord", self._epoch + 1)) is not None:
                return Ending.SUPERSEDED
            self._read()
            self._show(self.progress())
            if self._ledger.read(DONE) is not None:
                return Ending.DONE
            if order.state == "cancelled":
                self._engine.cancel()
                return Ending.CANCELLED
            if (seal := self._sealed()) is not None:
                self._conclude(seal)
                return Ending.DONE
            if order.state == "paused":
                return Ending.PAUSED
            self._supply(order)
            self._clock.sleep(self._random.uniform(0.8, 1.0) * self._look_s)

    def progress(self) -> Progress:
        """Where the run stands."""
        return Progress(
            self._control.order,
            self._row_count,
            self._rows_done,
            len(self._view.open) + len(self._view.ended),
            len(self._view.ended),
            self._counts,
            self._classes,
            self._worked_s,
            self._view.watch.alive(),
        )

    def _take_over(self) -> None:
        number = self._ledger.last("coord")
        while True:
            number += 1
            if self._ledger.create(chain_key("coord", number), {"name": self.name}).won:
                break
        self._epoch = number
        failpoint.reach("coord.epoch")

    def _read(self) -> None:
        """List what is new, and read the `fin` of every cell that has ended since, once."""
        for name in self._engine.dead(self._view.watch.silent()):
            self._ledger.create(f"gone/{name}", {"by": self.name})
        self._view.refresh()
        new = sorted(self._view.ended - self._fins.keys())
        for cell, record in zip(new, self._ledger.read_many([f"fin/{cell.id}" for cell in new]), strict=True):
            if record is None:  # listed, and lost since: it has to be done again
                self._view.ended.discard(cell)
                self._view.add(cell)
                continue
            parts = read_parts(record)
            self._fins[cell] = parts
            self._count(parts)
            unknown = [p for p in parts if p.attempt is None and self._view.add(p.cell)]
            announce(self._ledger, unknown)  # its splitter died before it could

    def _count(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if (attempt := part.attempt) is not None:
                self._counts = tally([self._counts, attempt.counts])
                self._classes = tally([self._classes, attempt.classes])
                self._worked_s += attempt.seconds
                self._rows_done += part.stop - part.start

    def _sealed(self) -> Seal | None:
        """The seal, made if everything is there for it."""
        if self._view.planned is None or self._view.open:
            return None
        if (seal := read_seal(self._ledger)) is not None:
            return seal
        leaves, missing = resolve(self._view.planned, self._fins, self._view.voided)
        if missing:
            for cell in missing:
                self._view.add(cell)
            return None
        check_tiles(leaves, self._row_count)
        failpoint.reach("coord.complete")
        if broken := lost(self._ledger, leaves):
            self._redo(broken)
            return None
        seal = make_seal(self._ledger, leaves)
        failpoint.reach("coord.seal")
        return seal

    def _redo(self, leaves: Sequence[Leaf]) -> None:
        """Have cells done again whose attempts the store has lost."""
        for leaf in leaves:
            cell = Cell.parse(leaf.cell)
            self._ledger.create(f"void/{cell.id}", {"attempt": leaf.attempt.key})
            self._view.void(cell)

    def _conclude(self, seal: Seal) -> None:
        failpoint.reach("coord.merge")
        done = self._finish(seal)
        failpoint.reach("coord.done")
        self._ledger.create(DONE, done)

    def _supply(self, order: Order) -> None:
        """Start pilots that are missing: no more than may be, than fit, than there are cells for."""
        wanted = min(order.pilots, self._engine.fit(), len(self._view.open))
        missing = wanted - self._engine.alive()
        if missing > 0:
            failpoint.reach("coord.submit")
            self._engine.submit(missing)
