"""Pictures for those who watch a stream: small, with the findings drawn on them, and not more than a screen needs.

Each frame that may raise an alert is drawn beyond that, since an alert shows what raised it.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from buoy.image import Pixels
from buoy.outputs import drawn
from buoy.results import Result
from buoy.streams.rule import Rule
from buoy.streams.spec import Point, StreamSpec

__all__ = ["MOST_PER_SECOND", "Pictures"]

MOST_PER_SECOND = 12.0
_JPEG_QUALITY = 80
#: RGB, of lines and regions.
_MARK = (255, 255, 255)


class Pictures:
    """The drawn pictures of one stream; none as long as nobody watches."""

    def __init__(self, spec: StreamSpec) -> None:
        self._lines = [[line.start, line.end] for line in spec.lines]
        self._regions = [region.points for region in spec.regions]
        # Those of the service, without their pauses: it may cut one short, and no frame that it chooses is missed here.
        webhooks = [sink for sink in spec.sinks if sink.kind == "webhook"]
        self._rules = [Rule(sink.label, sink.score, sink.k, sink.n, 0.0) for sink in webhooks]
        #: At most so wide, px; 0 for none. Set from any thread.
        self.width = 0
        self._due_s = 0.0

    def draw(self, result: Result, pixels: Pixels | None) -> bytes:
        """The JPEG of a frame; empty if none is wanted now.

        Args:
            result: what was found in it.
            pixels: (H, W, 3) uint8, RGB.
        """
        width, now_s = self.width, time.monotonic()
        alerting = self._may_alert(result, now_s)
        if not width or pixels is None or (now_s < self._due_s and not alerting):
            return b""
        # From when it was due, so that the rate is kept although frames come when they come.
        self._due_s = max(self._due_s + 1 / MOST_PER_SECOND, now_s - 1 / MOST_PER_SECOND)
        canvas = drawn.draw(result, self._marked(_fit(pixels, width)))
        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        assert done, "OpenCV encodes any (H, W, 3) uint8 array"
        return data.tobytes()

    def _may_alert(self, result: Result, now_s: float) -> bool:
        found = [(each.label, each.score) for each in result.detections or ()]
        flagged = bool(result.input.frame and result.input.frame.flags)
        return any([rule.see(found, flagged=flagged, now_s=now_s) for rule in self._rules])  # all of them have to see

    def _marked(self, pixels: Pixels) -> Pixels:
        """With the lines and regions; the picture itself if there are none."""
        if not self._lines and not self._regions:
            return pixels
        canvas = pixels.copy()
        lines = [_placed(points, canvas) for points in self._lines]
        regions = [_placed(points, canvas) for points in self._regions]
        cv2.polylines(canvas, lines, isClosed=False, color=_MARK, thickness=2, lineType=cv2.LINE_AA)
        cv2.polylines(canvas, regions, isClosed=True, color=_MARK, thickness=1, lineType=cv2.LINE_AA)
        return canvas


def _fit(pixels: Pixels, width: int) -> Pixels:
    """The picture, at most so wide."""
    have_height, have_width = pixels.shape[:2]
    if have_width <= width:
        return pixels
    size = (width, max(1, round(have_height * width / have_width)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _placed(points: list[Point], pixels: Pixels) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    height, width = pixels.shape[:2]
    return np.array([(round(x * (width - 1)), round(y * (height - 1))) for x, y in points], np.int32).reshape(-1, 2)
