"""What a process believes about the cells: made from listings, so it may be behind the truth, never ahead of it.

Keys of cells sort by rows, and pilots take cells roughly in that order. So only what comes after the first
unfinished cell has to be listed: a page each time, however large the run is.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

from buoy.batch.layout import PLAN, Cell, parse_claim
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger

__all__ = ["View"]

#: So many claims are read at each look for something to take over.
_READ = 8


class View:
    """The cells that are not known to have ended, and who has claimed them."""

    def __init__(self, ledger: Ledger, watch: LeaseWatch) -> None:
        self._ledger = ledger
        self.watch = watch
        self.planned: list[Cell] | None = None
        self.open: set[Cell] = set()
        self.ended: set[Cell] = set()
        self.voided: set[Cell] = set()
        self._claims: dict[Cell, int] = {}
        self._pilots: dict[str, str] = {}

    def refresh(self) -> None:
        """List everything that can have changed."""
        if self.planned is None:
            self._read_plan()
        beats = self._ledger.names("hb/")
        gone = [each.key.removeprefix("gone/") for each in self._ledger.names("gone/")]
        self.watch.see(beats, gone)
        for each in self._ledger.names("new/"):
            self.add(Cell.parse(each.key.removeprefix("new/")))
        for each in self._ledger.names("void/"):
            self.void(Cell.parse(each.key.removeprefix("void/")))
        for each in self._ledger.names("fin/", self.after("fin/")):
            self.end(Cell.parse(each.key.removeprefix("fin/")))
        self.refresh_claims()

    def refresh_claims(self) -> None:
        """List the claims only."""
        for each in self._ledger.names("claim/", self.after("claim/")):
            self.claimed(*parse_claim(each.key))

    def add(self, cell: Cell) -> bool:
        """There is such a cell; `False` if that is no news."""
        if cell in self.open or cell in self.ended:
            return False
        self.open.add(cell)
        return True

    def void(self, cell: Cell) -> None:
        """The store has lost what the cell's `fin` names: its next generation does it again."""
        self.voided.add(cell)
        self.add(cell._replace(generation=cell.generation + 1))

    def end(self, cell: Cell) -> None:
        """The cell has a `fin`."""
        self.open.discard(cell)
        self.ended.add(cell)
        self._claims.pop(cell, None)

    def claimed(self, cell: Cell, epoch: int) -> None:
        """The cell has a claim of that epoch."""
        if cell in self.open and epoch > self._claims.get(cell, 0):
            self._claims[cell] = epoch
            self.watch.age_s(f"{cell.id}-{epoch}")

    def free(self) -> list[Cell]:
        """Cells without a claim, in the order of their rows."""
        return sorted(self.open - self._claims.keys())

    def pick(self, random: Random) -> tuple[Cell, int] | None:
        """A cell to claim, and the epoch to claim it with; `None` if all are in good hands.

        Among the first free ones by chance, so that pilots that look at the same time seldom meet; then
        what has expired.
        """
        if free := self.free():
            among = 1 + len(self.watch.alive())
            return free[random.randrange(min(among, len(free)))], 1
        lost = [(cell, epoch) for cell, epoch in self._known(random) if self._expired(cell, epoch)]
        if not lost and (dropped := self._dropped(random)) is not None:
            lost = [dropped]
        if not lost:
            return None
        cell, epoch = lost[random.randrange(len(lost))]
        return cell, epoch + 1

    def holders(self) -> set[str]:
        """The pilots that have the latest claims of open cells."""
        return {self._holder(cell, epoch) for cell, epoch in self._claims.items()}

    @property
    def claims(self) -> int:
        """How many of the open cells are claimed."""
        return len(self._claims)

    def after(self, prefix: str) -> str:
        """Where a listing has to begin: what comes before is about cells that have ended."""
        return f"{prefix}{min(self.open).start:012d}" if self.open else f"{prefix}~"

    def _known(self, random: Random) -> list[tuple[Cell, int]]:
        """The claims whose pilots are known, and a few more: many idle pilots do not read all claims each."""
        claims = sorted(self._claims.items())
        unread = [each for each in claims if f"{each[0].id}-{each[1]:04d}" not in self._pilots]
        later = set(random.sample(unread, len(unread) - _READ)) if len(unread) > _READ else set()
        return [each for each in claims if each not in later]

    def _expired(self, cell: Cell, epoch: int) -> bool:
        return self.watch.expired(f"{cell.id}-{epoch}", self._holder(cell, epoch))

    def _holder(self, cell: Cell, epoch: int) -> str:
        claim = f"{cell.id}-{epoch:04d}"
        if claim not in self._pilots:
            record = self._ledger.read(f"claim/{claim}")
            self._pilots[claim] = str(record["pilot"]) if record else ""  # the store has lost it: its age decides
        return self._pilots[claim]

    def _dropped(self, random: Random) -> tuple[Cell, int] | None:
        """An old claim whose pilot lives and works on something else: the store has lost its `fin`.

        One claim is looked at each time, so that many idle pilots do not ask about all of them.
        """
        old = [
            (cell, epoch)
            for cell, epoch in sorted(self._claims.items())
            if self._pilots.get(f"{cell.id}-{epoch:04d}")
            and self.watch.age_s(f"{cell.id}-{epoch}") >= self.watch.lease_s
        ]
        if not old:
            return None
        cell, epoch = old[random.randrange(len(old))]
        beat = self._ledger.read(f"hb/{self._pilots[f'{cell.id}-{epoch:04d}']}")
        return (cell, epoch) if beat is not None and beat["doing"].get("cell") != cell.id else None

    def _read_plan(self) -> None:
        record = self._ledger.read(PLAN)
        if record is not None:
            bounds = record["bounds"]
            self.planned = [Cell(start, stop) for start, stop in pairwise(bounds)]
            for cell in self.planned:
                self.add(cell)
