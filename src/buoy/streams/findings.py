"""What is made of one stream's results, frame after frame: flags, tracks, crossings."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET

from buoy.image import Pixels
from buoy.results import Result
from buoy.streams.crossing import Crossings, Report
from buoy.streams.frame import Frame
from buoy.streams.quality import Quality
from buoy.streams.slot import Policy
from buoy.streams.spec import StreamSpec
from buoy.streams.track import Tracker
from buoy.tasks import Thresholds

__all__ = ["Findings", "Finished"]


class Finished(NamedTuple):
    """The record of a frame as it goes out."""

    result: Result
    #: `None` without lines and regions.
    crossings: Report | None


class Findings:
    """Finishes the results of one stream, which come in order.

    Args:
        spec: the stream.
        policy: its policy; where every frame is read, the source's own clock counts, else ours.
        default: the model's thresholds.

    Raises:
        UsageError: tracking is wanted, and its library not installed.
    """

    def __init__(self, spec: StreamSpec, policy: Policy, default: Thresholds) -> None:
        score = default.score if spec.score is None else spec.score
        iou = default.iou if spec.iou is None else spec.iou
        tracking = spec.tracking
        self._score = score
        self._tracking = tracking
        self._own_clock = policy == "file"
        self._tracker = Tracker(tracking) if tracking else None
        self._crossings = Crossings(spec.lines, spec.regions)
        self._quality = Quality(spec)
        #: For the engine. A tracker needs what is too faint to be reported, for tracks that would break otherwise.
        self.thresholds = Thresholds(min(score, tracking.low) if tracking else score, iou)

    @property
    def needs_pixels(self) -> bool:
        """Whether the picture is looked at again."""
        return self._quality.on

    def finish(self, frame: Frame, result: Result, pixels: Pixels | None) -> Finished:
        """What goes out of a frame.

        Args:
            frame: the frame.
            result: what the engine made of it.
            pixels: (H, W, 3) uint8, RGB.
        """
        clock_s = frame.clock_s if self._own_clock else frame.arrived_s
        flags = self._quality.flags(pixels, clock_s) if pixels is not None else []
        found = result.detections or []
        size = (result.input.height or 1, result.input.width or 1)
        tracked = self._tracker.update(found, clock_s, size) if self._tracker else found
        reported = [each for each in tracked if each.score > self._score] if self._tracker else found
        crossings = self._crossings.update(tracked, reported, size, flagged=bool(flags))
        parameters = result.parameters
        if self._tracking:
            parameters = {**parameters, "score": self._score, "track": msgspec.to_builtins(self._tracking)}
        input = msgspec.structs.replace(result.input, frame=frame.info(flags))
        result = msgspec.structs.replace(result, input=input, parameters=parameters)
        if result.detections is not UNSET:
            result = msgspec.structs.replace(result, detections=reported)
        return Finished(result, crossings)
