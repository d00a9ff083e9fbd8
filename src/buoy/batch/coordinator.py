"""The coordinator: starts pilots, watches, and seals when every row is covered. Killing it costs nothing.

Everything that it knows is in the ledger, so the next one goes on at once: it takes the next number of the chain
`coord/`, and whoever held a lower one steps down. Until it does, two coordinators only create the same things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from buoy.batch import failpoint
from buoy.batch.budget import Budget
from buoy.batch.clock import Clock
from buoy.batch.control import Control, Order
from buoy.batch.division import Assigner
from buoy.batch.engines import PilotEngine
from buoy.batch.layout import DONE, Cell, chain_key
from buoy.batch.ledger import Ledger
from buoy.batch.overview import Overview, Progress
from buoy.batch.pilot import Ending, Pace
from buoy.batch.seal import Leaf, Seal, check_tiles, lost, make_seal, read_seal
from buoy.batch.supply import Supply
from buoy.errors import JobError

__all__ = ["Coordinator"]

#: So many pilots, and four for each that may work at once, are started without any effect before the run pauses.
_FRUITLESS = 20


class Coordinator:
    """See the module.

    Args:
        engine: starts pilots.
        about: the engine, as the ledger is to remember it.
        rows: of the manifest.
        finish: merges what the seal says and writes the results; what it gives becomes `done.json`.
        show: is told the progress at every look.
        look_s: between two looks.
        assigns: whether it gives the cells to the pilots, since the store cannot be trusted.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        random: Random,
        engine: PilotEngine,
        *,
        name: str,
        about: dict[str, str] | None = None,
        rows: int,
        pace: Pace,
        finish: Callable[[Seal], dict[str, Any]],
        show: Callable[[Progress], None] = lambda _: None,
        look_s: float = 2.0,
        assigns: bool = False,
    ) -> None:
        self.name, self._about = name, about or {}
        self._ledger, self._clock, self._random, self._engine = ledger, clock, random, engine
        self._row_count, self._finish, self._show, self._look_s = rows, finish, show, look_s
        self._control = Control(ledger)
        self._overview = Overview(ledger, clock, pace.lease_s)
        self._view = self._overview.view
        self._wants = Supply(clock)
        self._budget = Budget(ledger, beat_s=pace.beat_s, look_s=pace.look_s)
        self._assigner = Assigner(ledger, self._view, random) if assigns else None
        self._epoch = 0
        #: How far it has come, and how many pilots were started since it came so far.
        self._progress, self._fruitless = (0, 0), 0
        #: What keeps the engine from running as many pilots as it should.
        self._waits = ""

    def run(self) -> Ending:
        """Bring the run to an end, or stand aside for a newer coordinator, or stop because it is paused.

        Raises:
            StoreError: the ledger cannot be read or written, or is damaged.
            JobError: the engine refuses for good.
        """
        self._take_over()
        while True:
            order = self._control.look()
            if self._ledger.read(chain_key("coord", self._epoch + 1)) is not None:
                return Ending.SUPERSEDED
            self._view.refresh()
            self._bury()
            if self._assigner is not None:
                self._assigner.collect()
            order = self._within_budget(order)
            if order.state == "running":  # first of all: there may be a great many cells to read about
                self._supply(order)
            self._overview.read(mend=True)
            beats = self._budget.beats.read()
            self._see_progress(sum(beat["done"] for beat in beats.values()))
            self._show(self._overview.progress(order, self._row_count, self._waits, beats))
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
            if self._fruitless > _FRUITLESS + 4 * order.pilots:
                reason = (
                    f"{self._fruitless} workers were started one after the other, and none did anything: see their log"
                )
                self._control.give("paused", by=self.name, reason=reason)
            if self._assigner is not None:
                self._assigner.hand_out(order.pilots)
            self._engine.wait(self._random.uniform(0.8, 1.0) * self._look_s)

    def _take_over(self) -> None:
        number = self._ledger.last("coord")
        while True:
            number += 1
            if self._ledger.create(
                chain_key("coord", number), {"name": self.name, "engine": self._about, "at": self._clock.wall()}
            ).won:
                break
        self._epoch = number
        failpoint.reach("coord.epoch")

    def _bury(self) -> None:
        """Tell everybody of the pilots that the engine knows to have ended."""
        with self._asking():
            for name in self._engine.dead(self._view.watch.silent()):
                if self._ledger.read(f"gone/{name}") is None:  # else it has said so itself
                    self._ledger.create(f"gone/{name}", {"by": self.name})

    def _see_progress(self, looked: int) -> None:
        if (progress := (looked, len(self._view.ended))) != self._progress:
            self._progress, self._fruitless = progress, 0

    def _within_budget(self, order: Order) -> Order:
        if order.state == "running" and self._view.open and (reason := self._budget.reached(order)):
            return self._control.give("paused", by=self.name, reason=reason)
        return order

    def _sealed(self) -> Seal | None:
        """The seal, made if everything is there for it."""
        if self._view.planned is None or self._view.open:
            return None
        if (seal := read_seal(self._ledger)) is not None:
            return seal
        leaves, missing = self._overview.resolve()
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
        if self._ledger.read(DONE) is not None:  # what is out is not written again, not even its report
            return
        done = self._finish(seal)
        failpoint.reach("coord.done")
        self._ledger.create(DONE, done)

    def _supply(self, order: Order) -> None:
        """Ask for pilots: no more than may be, than fit, than there are cells for (`supply` says how fast)."""
        self._waits = ""
        with self._asking():
            useful = min(order.pilots, len(self._view.open))
            begun = self._view.watch.silent()
            wanted = self._wants.wanted(useful, self._engine.fit(), self._engine.alive(), begun)
            self._waits = f"{wanted.waits}{self._engine.trouble()}" if wanted.late else wanted.waits
            if wanted.pilots:
                failpoint.reach("coord.submit")
                self._engine.submit(wanted.pilots)
                self._fruitless += wanted.pilots

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What the engine cannot do now is said, and tried again at the next look."""
        try:
            yield
        except JobError as error:
            if not error.retry:
                raise
            self._waits = str(error)
