"""Counts of a stream over all its openings, and how fast it goes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

__all__ = ["LOST", "Totals"]

#: The reason under which frames count that were in flight when the process that looked at them ended. Those of a folder
#: or video come again, and are received once more.
LOST = "worker lost"
_WINDOW_S = 10.0


class Totals:
    """Adds up what the process counts: it begins from nothing with each opening, these numbers only grow.

    `received = processed + dropped + in flight` holds here too.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {"received": 0, "processed": 0, "dropped": {}, "reconnects": 0}
        self._latest: dict[str, Any] = {}
        self._seen: deque[tuple[float, int, int, int]] = deque()

    def reach(self, counts: dict[str, Any]) -> None:
        """What the process says by now."""
        self._latest = counts
        now_s = time.monotonic()
        if not self._seen or now_s - self._seen[-1][0] >= 0.5:
            at = self.now()
            self._seen.append((now_s, at["received"], at["processed"], sum(at["dropped"].values())))
        while now_s - self._seen[0][0] > _WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()

    def close(self) -> None:
        """That opening is over; what was in flight then has been lost."""
        counts = self.now()
        if lost := counts.pop("in_flight"):
            counts["dropped"][LOST] = counts["dropped"].get(LOST, 0) + lost
        self._before, self._latest = counts, {}

    def now(self) -> dict[str, Any]:
        """In the form that `buoy.streams.host` gives them."""
        before, latest = self._before, self._latest
        dropped = dict(before["dropped"])
        for reason, number in latest.get("dropped", {}).items():
            dropped[reason] = dropped.get(reason, 0) + number
        return {
            "received": before["received"] + latest.get("received", 0),
            "processed": before["processed"] + latest.get("processed", 0),
            "dropped": dropped,
            "in_flight": latest.get("in_flight", 0),
            "reconnects": before["reconnects"] + latest.get("reconnects", 0),
        }

    def rates(self) -> dict[str, float]:
        """Frames a second over the last ten: received, processed, dropped."""
        if len(self._seen) < 2 or time.monotonic() - self._seen[-1][0] > _WINDOW_S:
            return {"received": 0.0, "processed": 0.0, "dropped": 0.0}
        (first_s, *first), (last_s, *last) = self._seen[0], self._seen[-1]
        spent_s = max(last_s - first_s, 1e-3)
        received, processed, dropped = ((b - a) / spent_s for a, b in zip(first, last, strict=True))
        return {"received": round(received, 2), "processed": round(processed, 2), "dropped": round(dropped, 2)}
