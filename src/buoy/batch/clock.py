"""Time as batch code sees it, so that a test can play it: no other module here looks at a clock or sleeps."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What a process knows of time."""

    def monotonic(self) -> float:
        """Seconds since some moment; only differences within one process mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, for people to read. Nothing is ever decided by it."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The time of this machine."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
