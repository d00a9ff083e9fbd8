"""The same animal in several frames: ByteTrack, by the library `trackers`."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from buoy.errors import UsageError
from buoy.results import Detection
from buoy.streams.spec import Tracking

__all__ = ["Tracker"]

#: The frame rate that ByteTrack's model of motion was made for. Times are given with each frame, whatever its rate.
_RATE = 30.0
#: Frames whose distance in time says how fast frames come.
_RECENT = 9


class Tracker:
    """Gives detections of the same animal the same number, from 1, in the order of their appearance.

    A track gets its number with its second frame. The library looks at boxes alone: an animal that is taken for
    another species in one frame keeps its number.

    Args:
        tracking: the parameters. The detector must have run at the score `low` or below.

    Raises:
        UsageError: the library is not installed.
    """

    def __init__(self, tracking: Tracking) -> None:
        try:
            # Hundreds of milliseconds and 60 MB, so only streams that track load it.
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise UsageError(
                f"tracking needs the library trackers, which is not installed ({error})",
                "pip install 'buoy[track]', then opencv-python-headless anew, whose files that overwrites",
            ) from error
        self._low = tracking.low
        self._lost_s = tracking.lost_s
        self._detections: Any = supervision.Detections
        self._tracker: Any = ByteTrackTracker(
            lost_track_buffer=max(1, round(tracking.lost_s * _RATE)),
            frame_rate=_RATE,
            track_activation_threshold=tracking.new,
            # There, two boxes match up to a distance 1 - IoU; here, from an IoU on.
            minimum_iou_threshold=max(1e-3, 1 - tracking.match),
            high_conf_det_threshold=tracking.high,
        )
        self._clock_s: float | None = None
        self._own_s = 0.0
        self._between: deque[float] = deque(maxlen=_RECENT)
        self._size: tuple[int, int] | None = None

    def update(self, found: Sequence[Detection], clock_s: float, size: tuple[int, int] = (1, 1)) -> list[Detection]:
        """The detections of the next frame, in their order, with `track_id` where they belong to a track.

        Args:
            found: all from the score `low` on.
            clock_s: time of the frame in seconds, by any clock that goes on.
            size: height and width of the frame, px. An animal keeps its number when a camera changes them.
        """
        self._tick(clock_s)
        self._size = self._size or size
        down, across = (first / now for first, now in zip(self._size, size, strict=True))
        usable = [at for at, each in enumerate(found) if each.score >= self._low]
        boxes = np.array([found[at].box for at in usable], np.float64).reshape(-1, 4) * (across, down, across, down)
        seen = self._detections(
            xyxy=boxes,
            confidence=np.array([found[at].score for at in usable], np.float64),
            class_id=np.array([found[at].class_id for at in usable], int),
            data={"at": np.array(usable, int)},
        )
        tracked = self._tracker.update(seen, timestamp=self._own_s)
        result = list(found)
        for at, number in zip(tracked.data.get("at", ()), tracked.tracker_id, strict=True):
            if number >= 0:
                result[at] = msgspec.structs.replace(found[at], track_id=int(number) + 1)
        return result

    def _tick(self, clock_s: float) -> None:
        """Advance a clock that never stands still or goes back, as the library wants it."""
        passed_s = 1 / _RATE if self._clock_s is None else max(clock_s - self._clock_s, 1e-3)
        self._clock_s = clock_s
        self._own_s += passed_s
        self._between.append(passed_s)
        # A track outlives at least one frame without it, however slowly frames come. An outage is not slowness.
        self._tracker.maximum_time_without_update = max(self._lost_s, 2.1 * statistics.median(self._between))
