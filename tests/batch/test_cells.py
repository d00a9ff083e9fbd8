"""Cutting a manifest into cells: nothing is lost or done twice, whatever the objects are and the estimate said."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from buoy.batch.cells import CELL_S, Costs, plan_bounds
from buoy.batch.fin import Attempt, halves, split
from buoy.batch.layout import Cell
from buoy.batch.manifest import Row

MOST_ROWS, MOST_BYTES, LEAST_S = 4096, 512 << 20, 5.0
#: Bytes, and what is known of an object before it is looked at.
OBJECTS = st.tuples(st.integers(0, 1 << 30), st.sampled_from(["", "", "", "skipped", "empty"]))
#: Many rows are some objects again and again.
MANIFESTS = st.builds(lambda objects, times: objects * times, st.lists(OBJECTS, max_size=60), st.integers(1, 200))
PILOTS, SECONDS = st.integers(1, 2000), st.floats(1e-4, 300.0)


def rows_of(objects: list[tuple[int, str]]) -> list[Row]:
    return [
        Row(row, f"{row:06d}.jpg", size_bytes, "e", 0.0, fate=fate) for row, (size_bytes, fate) in enumerate(objects)
    ]


def cut(rows: list[Row], costs: Costs, total_s: float, pilots: int, round_trip_s: float = 0.0) -> list[list[Row]]:
    bounds = plan_bounds(rows, costs, total_s=total_s, pilots=pilots, round_trip_s=round_trip_s)
    assert bounds[0] == 0
    assert bounds[-1] == len(rows)
    assert bounds == sorted(set(bounds))
    return [rows[start:stop] for start, stop in pairwise(bounds)]


@given(MANIFESTS, SECONDS, st.floats(0.0, 1e6), PILOTS, st.floats(0.0, 1.0))
def test_all_rows_are_covered_in_bounded_cells_however_wrong_the_estimate(
    objects: list[tuple[int, str]], mean_s: float, total_s: float, pilots: int, round_trip_s: float
) -> None:
    costs = Costs({}, mean_s)
    least_s = max(LEAST_S, 40 * round_trip_s)
    cells = cut(rows_of(objects), costs, total_s, pilots, round_trip_s)
    for number, cell in enumerate(cells):
        seconds = [costs.of(row) for row in cell]
        size_bytes = sum(row.size_bytes for row in cell if not row.fate)
        assert len(cell) <= MOST_ROWS
        assert len(cell) == 1 or size_bytes <= MOST_BYTES
        assert len(cell) == 1 or sum(seconds) <= max(least_s, CELL_S) + seconds[-1] / 2 + 1e-6
        if number + 1 < len(cells):
            following = cells[number + 1][0]
            full = len(cell) == MOST_ROWS or size_bytes + following.size_bytes > MOST_BYTES
            assert full or sum(seconds) + costs.of(following) / 2 > least_s - 1e-6


@given(st.integers(1, 30_000), st.floats(1e-3, 2.0), PILOTS)
def test_cells_shrink_towards_the_end_so_that_all_end_together(number: int, mean_s: float, pilots: int) -> None:
    rows = [Row(row, "a.jpg", 1, "e", 0.0) for row in range(number)]
    cells = cut(rows, Costs({}, mean_s), number * mean_s, pilots)
    left_s = number * mean_s
    for cell in cells:
        assert len(cell) * mean_s <= max(LEAST_S, min(CELL_S, left_s / (2 * pilots))) + mean_s / 2 + 1e-6
        left_s -= len(cell) * mean_s
    for earlier, later in pairwise(cells):
        assert len(later) <= len(earlier) + 1


def test_nothing_is_no_cell() -> None:
    assert plan_bounds([], Costs({}, 1.0), total_s=0.0, pilots=1) == [0]


@given(st.integers(0, 10**6), st.integers(2, 5000), st.data())
def test_what_a_cell_is_split_into_tiles_it(start: int, rows: int, data: st.DataObject) -> None:
    cell = Cell(start, start + rows)
    stop = data.draw(st.integers(start + 1, cell.stop - 1))
    attempt = Attempt(key="att/x", etag="e", sha256="0" * 64, size_bytes=1)
    for first, second in (split(cell, stop, attempt), halves(cell)):
        assert (first.start, second.stop) == (cell.start, cell.stop)
        assert first.start < first.stop == second.start < second.stop
