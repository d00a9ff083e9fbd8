"""Calling a store that may be busy, restarting, or a lost packet away: what can pass is tried again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from buoy.batch.clock import Clock
from buoy.errors import StoreError

__all__ = ["Patience"]

T = TypeVar("T")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 20.0
#: Waits are in pieces, so that one who is to hurry does.
_PIECE_S = 1.0


class Patience:
    """Tries again with growing, fully jittered waits, and counts. For several threads; the counts are then roughly so.

    Args:
        clock: to wait between tries.
        random: for the jitter.
        patience_s: how long the store may fail before it is given up.
    """

    def __init__(self, clock: Clock, random: Random, patience_s: float) -> None:
        self.clock, self.random, self._patience_s = clock, random, patience_s
        #: Requests that were made, and those of them that had to be made again.
        self.requests = self.retries = 0
        self.spent_s = 0.0
        #: The retries by what the store said.
        self.causes: dict[str, int] = {}
        self._until_s = float("inf")

    def hurry(self, seconds: float) -> None:
        """Whoever calls, or is about to call, gives up after so long at the latest. For signal handlers too."""
        self._until_s = self.clock.monotonic() + seconds

    def call(self, request: Callable[[], T]) -> T:
        """Make a request.

        Raises:
            StoreError: it is refused, there is no room, or it fails for too long.
        """
        until_s, wait_s = self.clock.monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            asked_s = self.clock.monotonic()
            self.requests += 1
            try:
                return request()
            except StoreError as error:
                cause = error.code or "no answer"
                if not error.retry or error.full or self.clock.monotonic() > min(until_s, self._until_s):
                    raise
            finally:
                self.spent_s += self.clock.monotonic() - asked_s
            self.retries += 1
            self.causes[cause] = self.causes.get(cause, 0) + 1
            self._wait(self.random.uniform(0.0, wait_s))
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _wait(self, seconds: float) -> None:
        while seconds > 0 and self.clock.monotonic() <= self._until_s:
            self.clock.sleep(min(seconds, _PIECE_S))
            seconds -= _PIECE_S
