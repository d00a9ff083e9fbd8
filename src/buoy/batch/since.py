"""A catch-up: only what is new or changed since earlier runs were listed, by key and etag.

Manifests are in the order of their keys, so this is one walk through all of them side by side, in flat memory.
What has failed in an earlier run is not new: that is what a retry is for.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from buoy.batch.ledger import Ledger
from buoy.batch.manifest import Listed, Lister, ManifestRows, Notes, Pin
from buoy.errors import StoreError

__all__ = ["NewSince"]


class NewSince(Lister):
    """What another lister gives, with the fate `known` for what was in a manifest already.

    Args:
        lister: gives the objects.
        known: the runs below.
    """

    def __init__(self, lister: Lister, known: Sequence[Ledger]) -> None:
        self._lister, self._known = lister, known

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects, in the order of their keys."""
        pins = _Pins(heapq.merge(*(ManifestRows(ledger).pins() for ledger in self._known)))
        for each in self._lister.objects(after, skip):
            if each.fate == "outside":
                yield each
                continue
            found = [pin for pin in pins.of(each.key) if pin.fate in ("", each.fate)]
            if any(not each.etag or each.etag == pin.etag for pin in found):
                yield each._replace(fate="known")
            else:
                yield each._replace(altered=True) if found else each

    def notes(self) -> Notes:
        """What the lister tells."""
        return self._lister.notes()


class _Pins:
    """The known objects, looked up by keys that only grow."""

    def __init__(self, pins: Iterator[Pin]) -> None:
        self._pins = pins
        self._next = next(pins, None)
        self._key, self._here = "", list[Pin]()

    def of(self, key: str) -> list[Pin]:
        """What is known of a key.

        Raises:
            StoreError: keys do not come in order.
        """
        if key == self._key:
            return self._here
        if key < self._key:
            raise StoreError(f"the source was listed out of order: {key!r} after {self._key!r}", "run without a base")
        self._key, self._here = key, []
        while self._next is not None and self._next.key <= key:
            if self._next.key == key:
                self._here.append(self._next)
            self._next = next(self._pins, None)
        return self._here
