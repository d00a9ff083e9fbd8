"""Counting lines and regions: tracks that cross a line, animals that are in a region."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from msgspec import UNSET

from buoy.results import Detection
from buoy.streams.spec import Line, Point, Region

__all__ = ["Crossing", "Crossings", "Report", "Within", "inside", "side"]

#: Frames of a track before it counts.
_LENGTH = 3
#: A centre this near to a line, in parts of its box's shorter side, is on neither side: boxes jitter.
_NEAR = 0.4
#: Tracks that were not seen for so many frames are forgotten. Numbers of tracks never come again.
_FORGET = 3000

Box = tuple[float, float, float, float]


class Crossing(TypedDict):
    """A track has crossed a line."""

    line: str
    direction: str
    track_id: int
    label: str


class Within(TypedDict):
    """Animals in a region, by label."""

    now: dict[str, int]
    #: The most at once since the stream was opened, in frames without flags.
    maxn: dict[str, int]


class Report(TypedDict):
    """What lines and regions say of a frame."""

    events: list[Crossing]
    #: Since the stream was opened: {line: {"in": {label: n}, "out": {label: n}}}.
    lines: dict[str, dict[str, dict[str, int]]]
    regions: dict[str, Within]


@dataclass
class _Track:
    """What is known of one track at one line."""

    length: int = 0
    seen: int = 0
    #: The side on which it was last, left (-1) or right (1) of the line, and its centre there.
    side: int = 0
    centre: tuple[float, float] = (0.0, 0.0)
    counted: set[str] = field(default_factory=set)


class Crossings:
    """Counts at the lines and in the regions of one stream.

    A track is counted once for each direction, when it has been seen on both sides of a line, has passed between the
    line's ends, and is at least three frames long. `in` is to the right-hand side of somebody who walks from the
    line's start to its end, in the picture as it is shown.
    """

    def __init__(self, lines: Sequence[Line], regions: Sequence[Region]) -> None:
        self._lines = lines
        self._regions = regions
        self._number = 0
        self._tracks: dict[str, dict[int, _Track]] = {line.name: defaultdict(_Track) for line in lines}
        self._counts = {line.name: {"in": Counter[str](), "out": Counter[str]()} for line in lines}
        self._most = {region.name: Counter[str]() for region in regions}

    def update(
        self, tracked: Sequence[Detection], reported: Sequence[Detection], size: tuple[int, int], *, flagged: bool
    ) -> Report | None:
        """Count the next frame.

        Args:
            tracked: all detections, also those below the score that is reported, for the lines.
            reported: those that are reported, for the regions.
            size: (height, width) of the picture, px.
            flagged: the frame is no effort: it sets no maximum.

        Returns:
            What is to be told; `None` without lines and regions.
        """
        if not self._lines and not self._regions:
            return None
        self._number += 1
        height, width = size
        events = [event for line in self._lines for event in self._cross(line, tracked, width, height)]
        if self._number % _FORGET == 0:
            self._forget()
        return {
            "events": events,
            "lines": {name: {way: dict(counts) for way, counts in ways.items()} for name, ways in self._counts.items()},
            "regions": {
                region.name: self._within(region, reported, width, height, flagged) for region in self._regions
            },
        }

    def _cross(self, line: Line, tracked: Sequence[Detection], width: int, height: int) -> list[Crossing]:
        start, end = _scaled(line.start, width, height), _scaled(line.end, width, height)
        events: list[Crossing] = []
        for found in tracked:
            if found.track_id is UNSET:
                continue
            track = self._tracks[line.name][found.track_id]
            track.length += 1
            track.seen = self._number
            way = self._step(track, found.box, start, end)
            if way and way not in track.counted:
                track.counted.add(way)
                self._counts[line.name][way][found.label] += 1
                events.append({"line": line.name, "direction": way, "track_id": found.track_id, "label": found.label})
        return events

    @staticmethod
    def _step(track: _Track, box: Box, start: tuple[float, float], end: tuple[float, float]) -> str:
        """Move a track on; `in` or `out` if it has crossed now."""
        centre = _centre(box)
        now = side(centre, start, end, _NEAR * min(box[2] - box[0], box[3] - box[1]))
        if now == 0:
            return ""
        if track.side == 0 or now == track.side:
            track.side, track.centre = now, centre
            return ""
        if track.length < _LENGTH:
            return ""  # it stays where it was first seen until it is long enough
        passed = _meets(track.centre, centre, start, end)
        track.side, track.centre = now, centre
        return ("in" if now > 0 else "out") if passed else ""

    def _within(self, region: Region, found: Sequence[Detection], width: int, height: int, flagged: bool) -> Within:
        corners = [_scaled(point, width, height) for point in region.points]
        now = Counter(each.label for each in found if inside(_centre(each.box), corners))
        most = self._most[region.name]
        if not flagged:
            most |= now
        return {"now": dict(now), "maxn": dict(most)}

    def _forget(self) -> None:
        for tracks in self._tracks.values():
            for number in [number for number, track in tracks.items() if self._number - track.seen >= _FORGET]:
                del tracks[number]


def side(point: tuple[float, float], start: tuple[float, float], end: tuple[float, float], near: float = 0.0) -> int:
    """On which side of the line through two points: 1 right, -1 left (y points down), 0 within `near` pixels of it."""
    along = (end[0] - start[0], end[1] - start[1])
    length = (along[0] ** 2 + along[1] ** 2) ** 0.5
    if length == 0:
        return 0
    distance = (along[0] * (point[1] - start[1]) - along[1] * (point[0] - start[0])) / length
    return 0 if abs(distance) <= near else 1 if distance > 0 else -1


def inside(point: tuple[float, float], corners: Sequence[tuple[float, float]]) -> bool:
    """Whether a point lies in a polygon, by the even-odd rule."""
    x, y = point
    result = False
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            result = not result
    return result


def _meets(
    before: tuple[float, float], after: tuple[float, float], start: tuple[float, float], end: tuple[float, float]
) -> bool:
    """Whether the way between two points on different sides of a line meets it between its ends."""
    return side(start, before, after) != side(end, before, after)


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _scaled(point: Point, width: int, height: int) -> tuple[float, float]:
    return point[0] * width, point[1] * height
