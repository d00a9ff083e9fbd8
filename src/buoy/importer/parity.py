"""Whether our results are those of the software that a network comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from buoy.tasks.boxes import iou

__all__ = ["BOX_TOLERANCE_PX", "FLOOR", "SCORE_TOLERANCE", "Box", "Parity", "compare", "threshold_for"]

BOX_TOLERANCE_PX = 0.5
SCORE_TOLERANCE = 1e-3

#: Boxes below this score are not looked at: there, a tolerance of 0.001 would prove nothing.
FLOOR = 0.01

#: A comparison of fewer boxes than this says little; more than the second are not needed.
ENOUGH = 10
PLENTY = 200

#: A pair whose overlap is this near to the limit may be suppressed on one side only. ultralytics moves the boxes
#: of class k by 7680 k pixels in float32 (`utils/nms.py`), which alone costs up to 0.06 px at class 80.
_IOU_TOLERANCE = 0.02
#: Of the boxes, more than this share on one side only is a difference, borderline or not.
_MOST_EXCUSED = 0.2


class Box(Struct, frozen=True):
    """A detection as both sides have it; the box is x1, y1, x2, y2 in pixels of the picture."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


@dataclass
class Parity:
    """What a comparison found, over all pictures."""

    #: Score from which boxes were compared.
    score: float
    compared: int = 0
    #: On one side only, because a threshold runs right through them.
    excused: int = 0
    largest_px: float = 0.0
    largest_score: float = 0.0
    #: Differences above the tolerances: how large, in tolerances, and what.
    faults: list[tuple[float, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing but borderline cases differs."""
        return not self.faults and self.excused <= max(2.0, _MOST_EXCUSED * self.compared)

    def worst(self, most: int = 5) -> list[str]:
        """The largest differences, a line each."""
        lines = [line for _, line in sorted(self.faults, reverse=True)[:most]]
        if not self.faults and not self.ok:
            lines.append(f"{self.excused} boxes are on one side only, {self.compared} on both")
        return lines


def threshold_for(scores: Sequence[float], usual: float) -> float:
    """The score from which to compare: the usual one where it leaves a fair number of boxes, else another.

    Trained networks give a handful of boxes on drawn pictures, random ones thousands around one score. The other one
    is in the widest gap between two scores that leaves `ENOUGH` to `PLENTY` boxes, away from as many as possible.

    Args:
        scores: of all boxes above `FLOOR`, in all pictures.
        usual: the manifest's threshold.
    """
    ordered = sorted(scores, reverse=True)
    if ENOUGH <= sum(score > usual for score in ordered) <= PLENTY:
        return usual
    if len(ordered) <= ENOUGH:
        return FLOOR
    pairs = list(pairwise(ordered))[ENOUGH - 1 : PLENTY]
    above, below = max(pairs, key=lambda pair: pair[0] - pair[1])
    return (above + below) / 2 if above - below > 1e-6 else FLOOR


def compare(name: str, ours: Sequence[Box], theirs: Sequence[Box], iou_limit: float, parity: Parity) -> None:
    """Compare the boxes of one picture above `parity.score`, and add what is found to `parity`.

    Suppression goes by falling score, so boxes found with a lower threshold and then cut are those found with the
    higher one. A box within `SCORE_TOLERANCE` of the threshold, or one that overlaps a better one by almost exactly
    the limit, may be on one side only, and so may what it suppresses.
    """
    left = [box for box in ours if box.score > parity.score]
    right = [box for box in theirs if box.score > parity.score]
    for mine, other in _pairs(left, right, within=1.0):
        parity.compared += 1
        parity.largest_px = max(parity.largest_px, _apart_px(mine, other))
        parity.largest_score = max(parity.largest_score, abs(mine.score - other.score))
        left.remove(mine)
        right.remove(other)
    _excuse(left, right, [*ours, *theirs], iou_limit, parity)
    for mine, other in _pairs(left, right, within=100.0):
        left.remove(mine)
        right.remove(other)
        line = f"{_apart_px(mine, other):.2f} px and {abs(mine.score - other.score):.4f} in score apart"
        parity.faults.append((_apart(mine, other), f"{name}: {_told(other)}: ours is {line}"))
        parity.largest_px = max(parity.largest_px, _apart_px(mine, other))
        parity.largest_score = max(parity.largest_score, abs(mine.score - other.score))
    parity.faults += [(100 + box.score, f"{name}: {_told(box)}: only we find it") for box in left]
    parity.faults += [(100 + box.score, f"{name}: {_told(box)}: we do not find it") for box in right]


def _pairs(left: list[Box], right: list[Box], within: float) -> list[tuple[Box, Box]]:
    """Pairs of the same class that differ by at most `within` tolerances, the closest first, each box once."""
    apart = [
        (_apart(mine, other), i, j)
        for i, mine in enumerate(left)
        for j, other in enumerate(right)
        if mine.class_id == other.class_id
    ]
    chosen: dict[int, int] = {}
    for distance, i, j in sorted(apart):
        if distance <= within and i not in chosen and j not in chosen.values():
            chosen[i] = j
    return [(left[i], right[j]) for i, j in chosen.items()]


def _excuse(left: list[Box], right: list[Box], everyone: list[Box], limit: float, parity: Parity) -> None:
    """Take out of both lists what is there or not by a hair."""
    excused: list[Box] = []
    before = -1
    while before != len(excused):
        before = len(excused)
        for side in (left, right):
            for box in list(side):
                if _borderline(box, everyone, excused, limit, parity.score):
                    side.remove(box)
                    excused.append(box)
    parity.excused += len(excused)


def _borderline(box: Box, everyone: list[Box], excused: list[Box], limit: float, score: float) -> bool:
    if box.score - score <= SCORE_TOLERANCE:
        return True
    better = [each for each in everyone if each.class_id == box.class_id and each.score > box.score - SCORE_TOLERANCE]
    if np.any(np.abs(_overlaps(box, better) - limit) <= _IOU_TOLERANCE):
        return True
    same = [each for each in excused if each.class_id == box.class_id]
    return bool(np.any(_overlaps(box, same) >= limit - _IOU_TOLERANCE))


def _overlaps(box: Box, others: list[Box]) -> NDArray[np.floating]:
    corners = np.array([each.box for each in others], np.float64).reshape(-1, 4)
    return iou(np.array(box.box, np.float64), corners)


def _apart(one: Box, other: Box) -> float:
    """How far two boxes differ, in tolerances."""
    return max(_apart_px(one, other) / BOX_TOLERANCE_PX, abs(one.score - other.score) / SCORE_TOLERANCE)


def _apart_px(one: Box, other: Box) -> float:
    return max(abs(a - b) for a, b in zip(one.box, other.box, strict=True))


def _told(box: Box) -> str:
    return f"class {box.class_id}, score {box.score:.4f}, at {[round(side, 1) for side in box.box]}"
