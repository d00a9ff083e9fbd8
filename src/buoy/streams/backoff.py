"""How long to wait before the next attempt."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Doubling waits with jitter, so that a hundred cameras behind one switch do not come back in the same instant.

    Args:
        low_s: the shortest wait.
        high_s: the longest.
    """

    def __init__(self, low_s: float = 1.0, high_s: float = 30.0) -> None:
        self.low_s = low_s
        self.high_s = high_s
        self._most_s = 0.0
        self._random = random.Random()

    def next_s(self) -> float:
        """The next wait: between half and the whole of a limit that doubles; the first at most twice the shortest."""
        self._most_s = min(self.high_s, max(2 * self.low_s, 2 * self._most_s))
        return self._random.uniform(max(self.low_s, self._most_s / 2), self._most_s)

    def slow_s(self) -> float:
        """A wait of the slow end, for what is not likely to change soon."""
        self._most_s = self.high_s
        return self.next_s()

    def reset(self) -> None:
        """It went well: begin anew."""
        self._most_s = 0.0
