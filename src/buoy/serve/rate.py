"""How often each caller may ask: a bucket of tokens for each, and no more than so many buckets."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from buoy.errors import UsageError
from buoy.serve.refusals import TooOften

__all__ = ["Rate", "Rates"]

_SECONDS = {"s": 1, "min": 60, "h": 3600}


class Rate(NamedTuple):
    """So many requests in so many seconds."""

    most: int
    period_s: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `20/s`, `100/min` or `1000/h`.

        Raises:
            UsageError: it is something else.
        """
        found = re.fullmatch(r"([1-9]\d{0,6})/(s|min|h)", text.strip())
        if found is None:
            raise UsageError(f"the rate is {text[:40]!r}", "give requests per time: 20/s, 100/min or 1000/h")
        return cls(int(found[1]), _SECONDS[found[2]])

    def __str__(self) -> str:
        unit = next(name for name, seconds in _SECONDS.items() if seconds == self.period_s)
        return f"{self.most}/{unit}"


class Rates:
    """Takes a request off a caller's allowance: all of it may be used at once, and it comes back evenly.

    Args:
        rate: the allowance of each.
        callers: how many are remembered; of more, the one that has been silent for longest is forgotten.
        clock: for tests.
    """

    def __init__(self, rate: Rate, callers: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._callers = callers
        self._clock = clock
        #: Caller to what was left of its allowance, and when.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, caller: str) -> None:
        """Count a request.

        Raises:
            TooOften: nothing is left of the caller's allowance.
        """
        now_s, (most, period_s) = self._clock(), self._rate
        left, then_s = self._left.pop(caller, (float(most), now_s))
        left = min(float(most), left + (now_s - then_s) * most / period_s)
        allowed = left >= 1
        self._left[caller] = (left - 1 if allowed else left, now_s)
        if len(self._left) > self._callers:
            self._left.popitem(last=False)
        if not allowed:
            raise TooOften(
                f"more than {self._rate} requests",
                "try again later: Retry-After says when",
                retry_after_s=(1 - left) * period_s / most,
            )
