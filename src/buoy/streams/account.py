"""The counts of one stream: every frame that was received is processed, dropped for a reason, or in flight."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple, TypedDict

__all__ = ["Account", "Counts", "Settled"]


class Counts(TypedDict):
    """The counts as messages have them; received = processed + dropped + in flight."""

    received: int
    processed: int
    dropped: dict[str, int]
    in_flight: int
    reconnects: int


class Settled(NamedTuple):
    """How far a stream has got."""

    received: int
    #: Processed or dropped.
    done: int


class Account:
    """Counts from any thread. Each frame is first received, then either processed or dropped, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._processed = self._reconnects = 0
        self._dropped: Counter[str] = Counter()
        self._closed = False

    def received(self) -> None:
        """A frame came."""
        with self._lock:
            if not self._closed:
                self._received += 1

    def processed(self) -> None:
        """One of those that were received has been looked at."""
        with self._lock:
            if not self._closed:
                self._processed += 1

    def dropped(self, reason: str) -> None:
        """One of those that were received will not be looked at."""
        with self._lock:
            if not self._closed:
                self._dropped[reason] += 1

    def reconnected(self) -> None:
        """A source that was lost gives frames again."""
        with self._lock:
            self._reconnects += 1

    def close(self, reason: str) -> None:
        """Nothing more will be told: what is in flight is dropped for this reason."""
        with self._lock:
            lost = self._received - self._processed - self._dropped.total()
            if lost:
                self._dropped[reason] += lost
            self._closed = True

    def counts(self) -> Counts:
        """All of one moment."""
        with self._lock:
            return {
                "received": self._received,
                "processed": self._processed,
                "dropped": dict(self._dropped),
                "in_flight": self._received - self._processed - self._dropped.total(),
                "reconnects": self._reconnects,
            }

    def settled(self) -> Settled:
        """How many came, and of how many the fate is known."""
        with self._lock:
            return Settled(self._received, self._processed + self._dropped.total())
