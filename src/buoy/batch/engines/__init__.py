"""What runs pilots: processes on this machine, OSCAR, Kubernetes. What the coordinator needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from buoy.batch.fit import Fit

__all__ = ["PilotEngine"]


class PilotEngine(Protocol):
    """Starts pilots and forgets them: whether they live is told by their heartbeats.

    Each call may raise a `JobError`; if trying again can help (`retry`), the coordinator says so and waits.
    """

    def submit(self, number: int) -> None:
        """Ask for so many more pilots."""
        ...

    def alive(self) -> int:
        """Pilots that run or are about to: submitted, and not known to have ended."""
        ...

    def fit(self) -> Fit:
        """How many pilots the machine or cluster has room for in all, those that run included."""
        ...

    def dead(self, names: Sequence[str]) -> list[str]:
        """Those of the pilots that have ended for certain. May be none: then their leases tell."""
        ...

    def trouble(self) -> str:
        """What keeps pilots from beginning, in the form `: why`; empty if that is not known."""
        ...

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if one of the pilots is seen to end."""
        ...

    def cancel(self) -> None:
        """End all pilots of the run: the run is cancelled."""
        ...
