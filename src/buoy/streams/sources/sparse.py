"""Decodes key frames only, where sampling would throw the others away."""

from __future__ import annotations

__all__ = ["Sparse"]

#: So many key frames must lie between two frames that are looked at.
_ENOUGH = 2.0


class Sparse:
    """Learns how often a camera sends key frames.

    A key frame needs no other to be decoded. With one picture a minute and a key frame a second, decoding nothing
    else costs a twenty-fifth.

    Args:
        every_s: one frame in so many seconds is wanted; 0 for all.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last_s: float | None = None
        self._skipping = False

    def skips(self, clock_s: float | None, key: bool, *, reorders: bool) -> bool:
        """Whether to leave this packet undecoded.

        Args:
            clock_s: the packet's time by the camera's clock; `None` if it has none.
            key: whether decoding can begin with it.
            reorders: whether the decoder holds frames back until others come.
        """
        if not self._every_s or clock_s is None:
            return False
        if key:
            interval_s = 0.0 if self._last_s is None else clock_s - self._last_s
            self._last_s = clock_s
            self._skipping = not reorders and 0 < interval_s * _ENOUGH <= self._every_s
        return self._skipping and not key
