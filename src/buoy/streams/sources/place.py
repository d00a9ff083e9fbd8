"""Where in a video decoding is, and whether what comes there was given before."""

from __future__ import annotations

from buoy.streams.progress import Spot

__all__ = ["Place"]


class Place:
    """Counts the pictures of a video, damaged ones too.

    Args:
        past: the latest that was given before; `None` to begin with the first.
        sought: decoding begins somewhere before that one, rather than at the beginning.
    """

    def __init__(self, past: Spot | None, *, sought: bool = False) -> None:
        #: Of the latest picture, from 0.
        self.number = past.number if past and sought else -1
        #: Whether `past` lies behind us.
        self.reached = past is None
        #: Of the latest picture; `None` from where on times do not tell pictures apart, so that seeking would mislead.
        self.pts = past.pts if past and sought else None
        self._past = past
        self._sought = sought
        self._clear = True

    def is_new(self, pts: int | None) -> bool:
        """Go on by one picture; whether it was not given before.

        Args:
            pts: its time by the video's own clock; `None` for one that is damaged, or has none.
        """
        if self._past and self._sought and not self.reached:
            if pts is None or pts < (self._past.pts or 0):
                return False
            self.reached = True
            if pts == self._past.pts:
                return False
        self.number += 1
        self._clear = self._clear and pts is not None and (self.pts is None or pts > self.pts)
        self.pts = pts if self._clear else None
        if not self.reached and self._past:
            self.reached = self.number == self._past.number
            return False
        return True
