"""Counting lines and regions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.results import Detection
from buoy.streams.crossing import Crossings, inside, side
from buoy.streams.spec import Line, Region

#: From top to bottom in the middle of a picture of 200 x 100: who walks down has the left of the picture at the right.
GATE = Line(name="gate", start=(0.5, 0.1), end=(0.5, 0.9))
SIZE = (100, 200)


def square(x: float, y: float = 50, track: int = 1, size: float = 10, label: str = "fish", **more: Any) -> Detection:
    half = size / 2
    return Detection(
        label=label, class_id=0, score=0.9, box=(x - half, y - half, x + half, y + half), track_id=track, **more
    )  # fmt: skip


def totals(frames: Iterable[list[Detection]], line: Line = GATE) -> tuple[int, int]:
    """Tracks in and out after the frames."""
    counting = Crossings([line], [])
    events = 0
    for frame in frames:
        report = counting.update(frame, frame, SIZE, flagged=False)
        assert report is not None
        events += len(report["events"])
    ways = report["lines"]["gate"]
    found = (sum(ways["in"].values()), sum(ways["out"].values()))
    assert events == sum(found)
    return found


def test_two_squares_that_cross_are_two_in_and_none_out() -> None:
    frames = [[square(160 - 8 * at, 40, 1), square(180 - 8 * at, 60, 2)] for at in range(20)]
    assert totals(frames) == (2, 0)


def test_the_way_back_counts_once_as_well() -> None:
    there = list(range(160, 30, -8))
    assert totals([square(x)] for x in there + there[::-1]) == (1, 1)
    assert totals([square(x)] for x in (there + there[::-1]) * 3) == (1, 1)


def test_jitter_on_the_line_counts_nothing() -> None:
    assert totals([square(100 + (2 if at % 2 else -2))] for at in range(50)) == (0, 0)


def test_jitter_while_crossing_counts_once() -> None:
    xs = [160, 140, 120, 104, 97, 103, 96, 104, 98, 80, 60]
    assert totals([square(x)] for x in xs) == (1, 0)


def test_a_track_of_less_than_three_frames_does_not_count() -> None:
    assert totals([[square(130)], [square(70)]]) == (0, 0)
    assert totals([[square(130)], [square(70)], [square(60)]]) == (1, 0)
    assert totals([[square(130)], [square(70)], [square(130)], [square(140)]]) == (0, 0)


def test_passing_beyond_the_ends_does_not_count() -> None:
    assert totals([square(160 - 8 * at, 5)] for at in range(20)) == (0, 0)
    assert totals([square(160 - 8 * at, 15)] for at in range(20)) == (1, 0)


def test_detections_without_a_track_do_not_count() -> None:
    loose = [[Detection(label="fish", class_id=0, score=0.9, box=(x, 40, x + 10, 50))] for x in range(160, 30, -8)]
    assert totals(loose) == (0, 0)


def test_a_line_counts_by_label_and_the_other_way_round_when_turned_round() -> None:
    frames = [[square(160 - 8 * at, 40, 1), square(40 + 8 * at, 60, 2, label="crab")] for at in range(17)]
    counting = Crossings([GATE, Line(name="turned", start=GATE.end, end=GATE.start)], [])
    for frame in frames:
        report = counting.update(frame, frame, SIZE, flagged=False)
    assert report is not None
    assert report["lines"]["gate"] == {"in": {"fish": 1}, "out": {"crab": 1}}
    assert report["lines"]["turned"] == {"in": {"crab": 1}, "out": {"fish": 1}}


def test_lines_follow_a_change_of_resolution() -> None:
    counting = Crossings([GATE], [])
    for at, x in enumerate(range(160, 30, -8)):
        scale = 1 if at < 8 else 3
        found = [square(x * scale, 50 * scale, size=10 * scale)]
        report = counting.update(found, found, (100 * scale, 200 * scale), flagged=False)
    assert report is not None
    assert report["lines"]["gate"]["in"] == {"fish": 1}


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), min_size=1, max_size=60))
def test_whatever_a_track_does_it_counts_at_most_once_each_way(path: list[tuple[int, int]]) -> None:
    came, went = totals([square(x, y)] for x, y in path)
    assert came <= 1
    assert went <= 1


def test_a_region_says_who_is_inside_now_and_the_most_at_once() -> None:
    reef = Region(name="reef", points=[(0, 0), (0.5, 0), (0.5, 1), (0, 1)])
    counting = Crossings([], [reef])
    frames: list[tuple[list[float], bool]] = [
        ([10, 150], False),
        ([10, 50, 90], False),
        ([5, 6, 7, 8], True),
        ([], False),
    ]
    reports = [
        counting.update([], [square(x) for x in xs], SIZE, flagged=flagged) for xs, flagged in frames
    ]  # fmt: skip
    regions = [report["regions"]["reef"] for report in reports if report]
    assert [each["now"] for each in regions] == [{"fish": 1}, {"fish": 3}, {"fish": 4}, {}]
    assert [each["maxn"] for each in regions] == [{"fish": 1}, {"fish": 3}, {"fish": 3}, {"fish": 3}]


def test_without_lines_and_regions_there_is_nothing_to_tell() -> None:
    assert Crossings([], []).update([square(1)], [square(1)], SIZE, flagged=False) is None


@pytest.mark.parametrize(("point", "expected"), [((1, 1.5), True), ((3, 1), False), ((1, 3), False), ((3, 3), True)])
def test_inside_a_polygon_that_touches_itself(point: tuple[float, float], expected: bool) -> None:
    # A triangle and a square that touch in (2, 2).
    assert inside(point, [(0, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2), (0, 2)]) is expected


def test_sides_of_a_line() -> None:
    assert [side(point, (0, 0), (0, 10)) for point in ((-3, 5), (3, 5), (0, 5))] == [1, -1, 0]
    assert side((3, 5), (0, 0), (0, 10), near=3) == 0
    assert side((3, 5), (1, 1), (1, 1)) == 0
