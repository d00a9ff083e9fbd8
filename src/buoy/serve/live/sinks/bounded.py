"""A queue that is bounded in seconds and bytes, so that whoever fills it never waits."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Bounded", "Entry"]

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """Something that waits."""

    item: T
    size_bytes: int
    entered_s: float


class Bounded(Generic[T]):
    """First in, first out; what has waited too long, or has no room, is dropped from the old end and counted.

    Args:
        max_s: how long anything may wait; by then it is dropped as `late`.
        max_bytes: how much may wait; above it the oldest is dropped as `full`.
        lost: told of each that is dropped, and why, while the queue is locked.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        max_s: float,
        max_bytes: int,
        *,
        lost: Callable[[T, str], None] = lambda item, reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_s = max_s
        self.max_bytes = max_bytes
        #: How many, by reason.
        self.dropped: Counter[str] = Counter()
        self._lost = lost
        self._clock = clock
        self._entries: deque[Entry[T]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """How many wait; what has waited too long is dropped by then, though nothing comes or goes."""
        with self._changed:
            self._shed()
            return len(self._entries)

    def put(self, item: T, size_bytes: int) -> None:
        """Add something; never waits."""
        with self._changed:
            self._entries.append(Entry(item, size_bytes, self._clock()))
            self._bytes += size_bytes
            self._shed()
            self._changed.notify()

    def take(self, timeout_s: float, most: int = 1 << 30) -> list[Entry[T]]:
        """Take out what waits, the oldest first; empty when nothing came in time, at once when closed."""
        with self._changed:
            self._shed()
            if not self._entries and not self._closed:
                self._changed.wait(timeout_s)
            taken = [self._entries.popleft() for _ in range(min(most, len(self._entries)))]
            self._bytes -= sum(entry.size_bytes for entry in taken)
            return taken

    def give_back(self, entries: Sequence[Entry[T]]) -> None:
        """Put back at the old end what could not be used yet; its time goes on."""
        with self._changed:
            self._entries.extendleft(reversed(entries))
            self._bytes += sum(entry.size_bytes for entry in entries)
            self._shed()

    def drop(self, reason: str) -> None:
        """Give up everything that waits."""
        with self._changed:
            while self._entries:
                self._drop(reason)

    def close(self) -> None:
        """Let nobody wait any more for something to come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _shed(self) -> None:
        oldest_s = self._clock() - self.max_s
        while self._entries and self._entries[0].entered_s < oldest_s:
            self._drop("late")
        while self._bytes > self.max_bytes:
            self._drop("full")

    def _drop(self, reason: str) -> None:
        entry = self._entries.popleft()
        self._bytes -= entry.size_bytes
        self.dropped[reason] += 1
        self._lost(entry.item, reason)
