"""A bounded line of inputs in front of some lanes: who may join, who waits too long, whose turn it is.

The engine has one in front of its threads, and the exposed service one in front of each inference process.
Whether there is room is decided from the length of the line and the measured time of a turn, so a caller is
refused at once rather than after having waited in vain.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from buoy.errors import BusyError

__all__ = ["Line", "Turn"]

T = TypeVar("T")

#: How much the latest turn weighs in the mean.
_LATEST = 0.2


class Turn(NamedTuple, Generic[T]):
    """An item whose turn has come, and for how long it waited."""

    item: T
    waited_s: float


@dataclass(eq=False)
class _Place(Generic[T]):
    item: T
    since_s: float
    expires_s: float


class Line(Generic[T]):
    """First come, first served; safe to use from several threads.

    Args:
        lanes: how many items are worked on at once.
        most: items that may wait, whatever their deadlines.
        max_wait_s: an expected wait above this is refused too, once every lane has two items waiting for it.
        late: told of each item that is dropped because its time was over.
    """

    def __init__(
        self,
        lanes: int,
        *,
        most: int = 64,
        max_wait_s: float = math.inf,
        late: Callable[[T], None] = lambda item: None,
    ) -> None:
        self.lanes = lanes
        self.most = most
        self.max_wait_s = max_wait_s
        self._late = late
        self._lock = threading.Lock()
        self._places: deque[_Place[T]] = deque()
        self._running = 0
        #: Mean time that an item keeps a lane; 0 until one has been measured.
        self.turn_s = 0.0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def pending(self) -> int:
        """Items that wait or are worked on."""
        return len(self._places) + self._running

    def wait_s(self) -> float:
        """How long an item that joins now would probably wait."""
        ahead = len(self._places) + self._running - self.lanes + 1
        return max(0, ahead) * self.turn_s / self.lanes

    def admit(self, deadline_s: float | None = None) -> None:
        """Refuse, if there is no room for one more now.

        Args:
            deadline_s: how long it may wait at most; `None` for as long as it takes.

        Raises:
            BusyError: the line is full, or the wait would be too long.
        """
        waiting, wait_s = len(self._places), self.wait_s()
        full = waiting >= self.most or (waiting >= 2 * self.lanes and wait_s > self.max_wait_s)
        too_late = deadline_s is not None and wait_s > deadline_s
        if full or too_late:
            why = f"a wait of {wait_s:.1f} s is expected" if self.turn_s else "the queue is full"
            limit = f", the deadline is {deadline_s:g} s" if too_late and not full else ""
            raise BusyError(
                f"{waiting} inputs are waiting; {why}{limit}",
                "try again later: Retry-After says when",
                retry_after_s=max(0.1, wait_s if full else wait_s - (deadline_s or 0.0)),
            )

    def join(self, item: T, deadline_s: float | None = None, *, bounded: bool = True) -> None:
        """Put an item at the end.

        Args:
            item: told apart by identity.
            deadline_s: see `admit`; when it is over and the item still waits, it is dropped.
            bounded: whether to refuse where there is no room; else the caller keeps to a limit of its own.

        Raises:
            BusyError: see `admit`.
        """
        with self._lock:
            if bounded:
                self.admit(deadline_s)
            now = time.monotonic()
            self._places.append(_Place(item, now, math.inf if deadline_s is None else now + deadline_s))

    def leave(self, item: T) -> bool:
        """Take an item out that no longer wants its turn; `False` if it does not wait (any more)."""
        with self._lock:
            for place in self._places:
                if place.item is item:
                    self._places.remove(place)
                    return True
        return False

    def next(self) -> Turn[T] | None:
        """The item whose turn it is; late ones are dropped on the way. Each is ended with `done`."""
        dropped = []
        try:
            with self._lock:
                now = time.monotonic()
                while self._places:
                    place = self._places.popleft()
                    if place.expires_s > now:
                        self._running += 1
                        return Turn(place.item, now - place.since_s)
                    dropped.append(place.item)
            return None
        finally:
            for item in dropped:
                self._late(item)

    def done(self, spent_s: float | None) -> None:
        """A turn is over.

        Args:
            spent_s: how long it kept its lane; `None` if it did not run, and so tells nothing.
        """
        with self._lock:
            self._running -= 1
            if spent_s is not None:
                self.turn_s = spent_s if not self.turn_s else (1 - _LATEST) * self.turn_s + _LATEST * spent_s
