"""The line in front of the lanes: who may join, who is late."""

from __future__ import annotations

import time

import pytest

from buoy.errors import BusyError
from buoy.waiting import Line


def test_items_come_out_in_the_order_they_came() -> None:
    line: Line[str] = Line(1)
    for item in "abc":
        line.join(item)
    assert [turn.item for turn in iter(line.next, None)] == ["a", "b", "c"]


def test_a_full_line_refuses_and_says_when_to_come_back() -> None:
    line: Line[object] = Line(2, most=3)
    line.join(object())
    line.next()
    line.done(0.5)
    for _ in range(3):
        line.join(object())
    with pytest.raises(BusyError, match="3 inputs are waiting") as refused:
        line.join(object())
    assert refused.value.retry_after_s == pytest.approx(0.5)  # two of the three before a new one, 0.5 s, two lanes
    assert len(line) == 3


def test_a_wait_beyond_the_deadline_is_refused_at_once() -> None:
    line: Line[object] = Line(1)
    line.join(object())
    line.next()
    line.done(1.0)
    line.join(object())
    line.join(object(), 5.0)
    assert line.wait_s() == pytest.approx(2.0)
    with pytest.raises(BusyError, match=r"the deadline is 1\.5 s"):
        line.join(object(), 1.5)
    line.join(object(), 2.5)


def test_an_expected_wait_beyond_the_limit_is_refused_once_all_lanes_have_work() -> None:
    line: Line[object] = Line(1, max_wait_s=0.1)
    line.join(object())
    line.next()
    line.done(1.0)
    for _ in range(2):
        line.join(object())
    with pytest.raises(BusyError):
        line.join(object())


def test_a_late_item_is_dropped_and_told() -> None:
    dropped: list[str] = []
    line: Line[str] = Line(1, late=dropped.append)
    line.join("late", 0.001)
    line.join("in time")
    time.sleep(0.01)
    turn = line.next()
    assert turn is not None
    assert turn.item == "in time"
    assert dropped == ["late"]


def test_an_item_can_leave_while_it_waits_and_only_then() -> None:
    line: Line[str] = Line(1)
    line.join("a")
    line.join("b")
    line.next()
    assert not line.leave("a")
    assert line.leave("b")
    assert line.next() is None
    assert line.pending == 1
    line.done(None)
    assert line.pending == 0
