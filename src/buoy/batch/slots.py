"""How many pilots work at once, without a coordinator: each holds a numbered slot, and without one it leaves.

Engines start twins (a retried request, a job that was posted to two clusters). Surplus pilots find no slot.
"""

from __future__ import annotations

from collections.abc import Callable

from buoy.batch.layout import parse_slot, slot_key
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger

__all__ = ["Slots"]


class Slots:
    """The slots as one pilot sees them."""

    def __init__(self, ledger: Ledger, watch: LeaseWatch, name: str) -> None:
        self._ledger, self._watch, self._name = ledger, watch, name
        self._pilots: dict[tuple[int, int], str] = {}

    def take(self, number: int, wait: Callable[[], bool]) -> bool:
        """Take one of the slots below `number`.

        A slot whose holder may be dead is waited for until its lease is over.

        Args:
            number: of slots there are.
            wait: lets a moment pass; `False` when waiting has no use any more.
        """
        while True:
            self._see()
            last: dict[int, int] = {}
            for each in self._ledger.names("slot/"):
                slot, epoch = parse_slot(each.key)
                last[slot] = max(epoch, last.get(slot, 0))
            unsure = False
            for slot in self._order(number, last):
                epoch = last.get(slot, 0)
                if epoch and not self._free(slot, epoch):
                    # Only a holder that has not been seen to move may be dead.
                    unsure |= not self._watch.moves(self._pilots[slot, epoch])
                    continue
                if self._ledger.create(slot_key(slot, epoch + 1), {"pilot": self._name}).won:
                    return True
                unsure = True
            if not unsure or not wait():
                return False

    def _order(self, number: int, last: dict[int, int]) -> list[int]:
        """Those that nobody has had first, by chance, so that pilots that begin together seldom meet."""
        slots = list(range(number))
        self._ledger.random.shuffle(slots)
        return sorted(slots, key=lambda slot: slot in last)

    def _see(self) -> None:
        self._watch.see(
            self._ledger.names("hb/"), [each.key.removeprefix("gone/") for each in self._ledger.names("gone/")]
        )

    def _free(self, slot: int, epoch: int) -> bool:
        if (slot, epoch) not in self._pilots:
            record = self._ledger.read(slot_key(slot, epoch))
            self._pilots[slot, epoch] = str(record["pilot"]) if record else ""
        return self._watch.expired(f"slot-{slot}-{epoch}", self._pilots[slot, epoch])
