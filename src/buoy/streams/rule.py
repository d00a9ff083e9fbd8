"""When to raise an alert: k of the last n frames above a threshold, then a pause."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["Rule"]


class Rule:
    """A label reaches a score in `k` of the last `n` frames.

    An alert is raised by a frame that reaches the score, never by one that does not, so its picture shows why.
    Flagged frames (dark, blurred, frozen, failed) are no observations: they are left out of the n.

    Args:
        label: empty for any.
        score: 0 to 1.
        k: so many frames.
        n: of the last so many.
        cooldown_s: after an alert none is raised for so long.
    """

    def __init__(self, label: str, score: float, k: int, n: int, cooldown_s: float) -> None:
        self.label = label
        self.score = score
        self.k = k
        self.cooldown_s = cooldown_s
        self._window: deque[bool] = deque(maxlen=n)
        self._hits = 0
        self._quiet_until_s = float("-inf")

    @property
    def hits(self) -> int:
        """How many of the last n frames reached the score."""
        return self._hits

    def see(self, found: Iterable[tuple[str, float]], *, flagged: bool, now_s: float) -> bool:
        """One more frame; tells whether it raises an alert.

        Args:
            found: label and score of each detection.
            flagged: whether the frame counts for nothing.
            now_s: monotonic seconds.
        """
        if flagged:
            return False
        hit = any(score >= self.score and self.label in ("", label) for label, score in found)
        if len(self._window) == self._window.maxlen:
            self._hits -= self._window[0]
        self._window.append(hit)
        self._hits += hit
        if not hit or self._hits < self.k or now_s < self._quiet_until_s:
            return False
        self._quiet_until_s = now_s + self.cooldown_s
        return True

    def forget(self) -> None:
        """There was a gap: what was seen before it is no neighbour of what comes after."""
        self._window.clear()
        self._hits = 0

    def rearm(self, at_s: float) -> None:
        """The last alert reached nobody: from then on (monotonic seconds) the next one need not wait for the pause."""
        self._quiet_until_s = min(self._quiet_until_s, at_s)
