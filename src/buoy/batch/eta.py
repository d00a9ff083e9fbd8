"""How long a run will still take, by what its cells have taken so far."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["left_s"]

#: The last so many cells count; so many times are they drawn anew.
_LAST, _DRAWS = 200, 200
#: How far the rest may be from what was, on top of what chance does: later pictures are larger, or fewer workers live.
_DRIFT = 0.1


def left_s(cells: Sequence[tuple[int, float]], rows: int, workers: int) -> tuple[float, float] | None:
    """Within which time it ends in 8 of 10 cases; `None` as long as nothing is known.

    Args:
        cells: objects and seconds of each cell, in the order in which they ended. They are drawn anew with replacement
            (bootstrap of the ratio; Efron, 1979), since cells differ in size and cost.
        rows: that are left.
        workers: that work on them.
    """
    cells = cells[-_LAST:]
    if not cells or not workers or not sum(number for number, _ in cells):
        return None
    random = Random(0)  # the same cells, the same answer
    ratios = []
    for _ in range(_DRAWS):
        drawn = random.choices(cells, k=len(cells))
        ratios.append(sum(seconds for _, seconds in drawn) / max(1, sum(number for number, _ in drawn)))
    ratios.sort()
    low, high = ratios[_DRAWS // 10], ratios[_DRAWS * 9 // 10]
    return (1 - _DRIFT) * low * rows / workers, (1 + _DRIFT) * high * rows / workers
