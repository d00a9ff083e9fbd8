"""How many pilots to ask an engine for: slowly at first, and none while some that were asked for have not begun."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from buoy.batch.clock import Clock
from buoy.batch.fit import Fit

__all__ = ["Supply", "Wanted"]

#: So many at first, then never more than twice as many as have been seen to work at once: what keeps pilots from
#: working (an image that is not there, a wrong password) is found out with a few.
_FIRST = 4
#: Once a pilot has been waiting for so long to begin, more of them would only wait too.
_PENDING_S = 120.0


class Wanted(NamedTuple):
    """So many more pilots, and what keeps the run from having all that it could use; empty if nothing does."""

    pilots: int
    waits: str
    #: Whether that is pilots that were asked for long ago and have not begun.
    late: bool = False


class Supply:
    """See the module. Knows what it has seen; another coordinator begins anew, and soon sees the same."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: set[str] = set()
        self._peak = 0
        self._since_s = clock.monotonic()

    def wanted(self, useful: int, fit: Fit, alive: int, begun: Collection[str]) -> Wanted:
        """How many pilots to ask for now.

        Args:
            useful: how many the run may have, and has work for.
            fit: for how many there is room.
            alive: how many the engine has, those included that wait for a place.
            begun: names of those that have begun to work and are not known to have ended.
        """
        now_s = self._clock.monotonic()
        pending = max(0, alive - len(begun))
        if not pending or not self._known.issuperset(begun):
            self._since_s = now_s
        self._known.update(begun)
        self._peak = max(self._peak, len(begun))
        waited_s = now_s - self._since_s
        if waited_s >= _PENDING_S:
            return Wanted(0, f"{pending} of {alive} workers have not begun for {waited_s:.0f} s", late=True)
        most = min(useful, fit.pilots, max(_FIRST, 2 * self._peak))
        short = f"room for {fit.pilots} of {useful} workers: {fit.why}" if fit.pilots < useful else ""
        return Wanted(max(0, most - alive), short)
