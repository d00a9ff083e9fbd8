"""How cells come to pilots: they claim them themselves; or, where create-only puts cannot be trusted, are given them.

    claimed     the pilot creates claim/ and fin/, and of several one wins
    assigned    the coordinator alone creates claim/ in a pilot's name, tells it by assign/, and turns its answer/
                into fin/: every key has one writer, so nothing depends on who wins

The records are the same, and so are lease, splits, seal and merge. Assigned pilots need a living coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import msgspec

from buoy.batch import failpoint
from buoy.batch.fin import Part, commit, read_parts
from buoy.batch.layout import SEAL, Cell, answer_key, assign_key, claim_key, parse_claim
from buoy.batch.ledger import Ledger
from buoy.batch.slots import Slots
from buoy.batch.view import View

__all__ = ["Assigned", "Assigner", "Claimed", "Division"]


#: All is listed anew after so many leases, even if free cells are known.
_FRESH_LEASES = 8


class Division(Protocol):
    """The cells of one pilot."""

    #: Whether whoever gives work has to see that the pilot waits for it.
    waits_aloud: bool

    def enter(self, pilots: int, wait: Callable[[], bool]) -> bool:
        """Whether this is one of so many pilots that may work at once."""
        ...

    def take(self) -> tuple[Cell, int] | None:
        """A cell that is ours now, and the epoch of its claim; `None` if there is none."""
        ...

    def over(self) -> bool:
        """Whether there will be no cell any more."""
        ...

    def end(self, cell: Cell, epoch: int, parts: Sequence[Part]) -> bool:
        """End a cell of ours; `False` if another has ended it first, which is known to the claimed only."""
        ...


class Claimed:
    """See the module. Among free cells one is taken by chance, then what has expired."""

    waits_aloud = False

    def __init__(self, ledger: Ledger, view: View, random: Random, name: str) -> None:
        self._ledger, self._view, self._random, self._name = ledger, view, random, name
        self._slots = Slots(ledger, view.watch, name)
        self._refreshed_s = float("-inf")

    def enter(self, pilots: int, wait: Callable[[], bool]) -> bool:
        """Take a slot."""
        return self._slots.take(pilots, wait)

    def take(self) -> tuple[Cell, int] | None:
        """Claim a cell."""
        while (picked := self._pick()) is not None:
            cell, epoch = picked
            failpoint.reach("pilot.claim")
            won = self._ledger.create(claim_key(cell, epoch), {"pilot": self._name}).won
            self._view.claimed(cell, epoch)
            if not won:
                continue
            failpoint.reach("pilot.claimed")
            if epoch > 1 and self._ledger.read(f"fin/{cell.id}") is not None:  # the listing was behind
                self._view.end(cell)
                continue
            return picked
        return None

    def over(self) -> bool:
        """Whether all cells have ended, as far as we know."""
        return self._view.planned is not None and not self._view.open

    def end(self, cell: Cell, epoch: int, parts: Sequence[Part]) -> bool:
        """Create the `fin`."""
        won = commit(self._ledger, cell, parts)
        self._view.end(cell)
        return won

    def _pick(self) -> tuple[Cell, int] | None:
        now_s, lease_s = self._ledger.clock.monotonic(), self._view.watch.lease_s
        # While there are free cells nothing else has to be known; it is listed rarely, so that listings stay short.
        fresh = now_s - self._refreshed_s < _FRESH_LEASES * lease_s
        if fresh and self._view.free():
            self._view.refresh_claims()
        if not fresh or not self._view.free():
            self._view.refresh()
            self._refreshed_s = now_s
        return self._view.pick(self._random)


class Assigned:
    """See the module."""

    waits_aloud = True

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger, self._name = ledger, name
        self._number = 0

    def enter(self, pilots: int, wait: Callable[[], bool]) -> bool:
        """Nobody is refused: who is one too many gets no cells."""
        return True

    def take(self) -> tuple[Cell, int] | None:
        """What we were given."""
        given = self._ledger.read(assign_key(self._name, self._number + 1))
        if given is None:
            return None
        self._number += 1
        failpoint.reach("pilot.claimed")
        return Cell.parse(given["cell"]), int(given["epoch"])

    def over(self) -> bool:
        """Whether the results are sealed."""
        return self._ledger.read(SEAL) is not None

    def end(self, cell: Cell, epoch: int, parts: Sequence[Part]) -> bool:
        """Tell the coordinator."""
        self._ledger.create(answer_key(cell, epoch), {"parts": msgspec.to_builtins(list(parts)), "pilot": self._name})
        return True


class Assigner:
    """The coordinator's side of it.

    Args:
        view: kept up to date by the coordinator.
    """

    def __init__(self, ledger: Ledger, view: View, random: Random) -> None:
        self._ledger, self._view, self._random = ledger, view, random
        self._numbers: dict[str, int] = {}

    def collect(self) -> None:
        """Turn answers into `fin`s; of two to one cell the first that is seen counts."""
        for each in self._ledger.names("answer/", self._view.after("answer/")):
            cell, _ = parse_claim(each.key)
            if cell in self._view.open and (answer := self._ledger.read(each.key)) is not None:
                parts = read_parts(answer)
                won = commit(self._ledger, cell, parts)
                failpoint.reach("giver.fin")
                self._view.end(cell)
                for part in parts:
                    if won and part.attempt is None:  # announced just now: nobody has to do it again
                        self._view.add(part.cell)

    def hand_out(self, pilots: int) -> None:
        """Give a cell to each of so many pilots that wait for one."""
        alive = [name for name in self._view.watch.alive() if self._view.watch.moves(name)]
        busy = self._view.holders().intersection(alive)
        for name in alive:
            if name in busy or len(busy) >= pilots:
                continue
            if (picked := self._view.pick(self._random)) is None:
                return
            cell, epoch = picked
            self._ledger.create(claim_key(cell, epoch), {"pilot": name})
            failpoint.reach("giver.claim")
            self._view.claimed(cell, epoch)
            if name not in self._numbers:
                self._numbers[name] = self._ledger.last(f"assign/{name}")
            self._numbers[name] += 1
            self._ledger.create(assign_key(name, self._numbers[name]), {"cell": cell.id, "epoch": epoch})
            busy.add(name)
