"""Runs together what came while all callers were busy.

Nobody ever waits for company: a tensor runs at once if a caller is free, alone. Those that come while all are
busy run together when one becomes free. So with one request at a time nothing is different from running each
alone, and under load the batch is as large as the load makes it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Ran", "Together"]

Work = TypeVar("Work")
Found = TypeVar("Found")


class Ran(NamedTuple, Generic[Found]):
    """What came of one piece of work, and how many were run with it, itself included."""

    found: Found
    together: int


class _Place(Generic[Work, Found]):
    """One thread's piece of work, and its outcome once somebody has run it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.taken = False
        self.ran: Ran[Found] | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.ran is not None or self.error is not None


class Together(Generic[Work, Found]):
    """Safe to use from many threads.

    Args:
        run: does a batch, and gives as many outcomes in the same order.
        callers: batches at once.
        most: pieces of work in a batch.
    """

    def __init__(self, run: Callable[[Sequence[Work]], Sequence[Found]], callers: int, most: int) -> None:
        self._run = run
        self._callers = callers
        self._most = most
        self._changed = threading.Condition()
        self._waiting: deque[_Place[Work, Found]] = deque()
        self._running = 0

    def run(self, work: Work) -> Ran[Found]:
        """Have one piece of work done, alone or with others; raises what its run raised."""
        place: _Place[Work, Found] = _Place(work)
        with self._changed:
            self._waiting.append(place)
            while not place.done:
                if place.taken or self._running >= self._callers:
                    self._changed.wait()
                else:
                    self._lead()
        if place.error is not None:
            raise place.error
        assert place.ran is not None
        return place.ran

    def _lead(self) -> None:
        """Run the first of those who wait, with the lock given back meanwhile."""
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        for place in batch:
            place.taken = True
        self._running += 1
        self._changed.release()
        try:
            self._do(batch)
        finally:
            self._changed.acquire()
            self._running -= 1
            self._changed.notify_all()

    def _do(self, batch: Sequence[_Place[Work, Found]]) -> None:
        try:
            found = self._run([place.work for place in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for place in batch:  # one of them is to blame, the others are not
                self._do([place])
            return
        for place, each in zip(batch, found, strict=True):
            place.ran = Ran(each, len(batch))
