"""Cutting the manifest into cells, by what its objects will cost.

A cell is about a minute of one pilot's work: long enough that claiming it costs nothing, short enough that losing one
does not hurt. Towards the end cells shrink (guided self-scheduling), so that all pilots finish together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from buoy.batch.manifest import Row

__all__ = ["CELL_S", "Costs", "plan_bounds"]

CELL_S = 60.0
_MOST_ROWS, _MOST_BYTES = 4096, 512 << 20
#: No cell is shorter, since lanes run empty at its end; nor than so many times what its claim, attempt and fin take.
_LEAST_S, _LEDGER_TIMES = 5.0, 40
#: A row that is not looked at.
_NOTHING_S = 2e-5


class Costs(NamedTuple):
    """Seconds that a pilot needs for an object, by the sample."""

    #: By kind of file and size class (see `kind_of`).
    by_kind: dict[str, float]
    #: For kinds that were not in the sample.
    mean_s: float

    def of(self, row: Row) -> float:
        """What one row will take."""
        return _NOTHING_S if row.fate else self.by_kind.get(kind_of(row), self.mean_s)


def kind_of(row: Row) -> str:
    """Suffix and size class: objects of one kind cost about the same."""
    suffix = row.key.rpartition(".")[2].lower()[:8]
    return f"{suffix}-{row.size_bytes.bit_length()}"


def plan_bounds(
    rows: Iterable[Row], costs: Costs, *, total_s: float, pilots: int, round_trip_s: float = 0.0, cell_s: float = CELL_S
) -> list[int]:
    """The row numbers between which cells lie, 0 and the number of rows included.

    Args:
        rows: all of them, in order.
        costs: of the objects.
        total_s: what all of them take one pilot.
        pilots: that will probably work at once.
        round_trip_s: of one request to the ledger.
        cell_s: the longest a cell should take.
    """
    least_s = max(_LEAST_S, _LEDGER_TIMES * round_trip_s)
    bounds, size_bytes, spent_s, left_s, count = [0], 0, 0.0, total_s, 0
    target_s = _target(cell_s, least_s, left_s, pilots)
    for row in rows:
        cost_s = costs.of(row)
        full = spent_s + cost_s / 2 > target_s or count >= _MOST_ROWS or size_bytes + row.size_bytes > _MOST_BYTES
        if count and full:
            bounds.append(row.row)
            left_s -= spent_s
            target_s = _target(cell_s, least_s, left_s, pilots)
            size_bytes, spent_s, count = 0, 0.0, 0
        spent_s += cost_s
        size_bytes += 0 if row.fate else row.size_bytes
        count += 1
    return [*bounds, bounds[-1] + count] if count else bounds


def _target(cell_s: float, least_s: float, left_s: float, pilots: int) -> float:
    return max(least_s, min(cell_s, left_s / (2 * max(1, pilots))))
