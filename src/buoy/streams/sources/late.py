"""Notices that a decoder falls behind its camera, and chooses what to leave out."""

from __future__ import annotations

__all__ = ["Late"]

#: Behind by more than this is late.
_LATE_S = 1.0
#: How fast the two clocks may drift apart without being taken for lateness: a millisecond a second.
_DRIFT = 1e-3
#: What waits in buffers is read in less than this.
_CATCH_UP_S = 2.0


class Late:
    """Compares the camera's clock with ours.

    Frames wait in the network's buffers while the decoder is busy: unnoticed, pictures would become older and older
    until the camera gives up. Leaving out what is between here and the next key frame costs next to no time.
    """

    def __init__(self) -> None:
        self._base_s: float | None = None
        self._last_s = 0.0
        self._skipping_since_s: float | None = None

    def skips(self, clock_s: float | None, key: bool, now_s: float) -> bool:
        """Whether to leave this packet undecoded.

        Args:
            clock_s: the packet's time by the camera's clock; `None` if it has none.
            key: whether decoding can begin with it.
            now_s: `time.monotonic()`.
        """
        if clock_s is None:
            return self._skipping_since_s is not None
        behind_s = now_s - clock_s
        if self._base_s is not None:
            self._base_s += _DRIFT * (now_s - self._last_s)
        self._last_s = now_s
        if self._base_s is None or behind_s < self._base_s or self._stepped(now_s):
            self._base_s = behind_s
        late = behind_s - self._base_s > _LATE_S
        if late and not key and self._skipping_since_s is None:
            self._skipping_since_s = now_s
        elif key and not late:
            self._skipping_since_s = None
        return self._skipping_since_s is not None

    def _stepped(self, now_s: float) -> bool:
        """Whether leaving out does not help, so that it was the camera's clock that went back."""
        return self._skipping_since_s is not None and now_s - self._skipping_since_s > _CATCH_UP_S
