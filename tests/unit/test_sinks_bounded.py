"""The queue that never makes its filler wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buoy.serve.live.sinks.bounded import Bounded


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_has_waited_too_long_is_dropped_as_late() -> None:
    clock, lost = Clock(), []
    queue: Bounded[int] = Bounded(2.0, 1000, lost=lambda item, reason: lost.append((item, reason)), clock=clock)
    queue.put(1, 1)
    clock.now_s = 1.5
    queue.put(2, 1)
    clock.now_s = 2.5
    assert [entry.item for entry in queue.take(0)] == [2]
    assert lost == [(1, "late")]
    assert queue.dropped == {"late": 1}


def test_what_has_no_room_pushes_out_the_oldest() -> None:
    queue: Bounded[int] = Bounded(60.0, 100)
    for number in range(10):
        queue.put(number, 30)
    assert [entry.item for entry in queue.take(0)] == [7, 8, 9]
    assert queue.dropped == {"full": 7}


def test_what_is_given_back_keeps_its_place_and_its_age() -> None:
    clock = Clock()
    queue: Bounded[int] = Bounded(2.0, 1000, clock=clock)
    queue.put(1, 1)
    queue.put(2, 1)
    taken = queue.take(0)
    queue.put(3, 1)
    queue.give_back(taken)
    assert [entry.item for entry in queue.take(0, 2)] == [1, 2]
    queue.give_back(taken)
    clock.now_s = 2.1
    assert len(queue) == 0
    assert queue.dropped == {"late": 3}
    assert queue.take(0) == []


def test_nobody_waits_at_a_closed_queue() -> None:
    queue: Bounded[int] = Bounded(2.0, 1000)
    queue.close()
    assert queue.take(3600.0) == []


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "back", "time"]), st.integers(0, 60)), max_size=60))
def test_everything_is_taken_dropped_or_waits_and_the_bounds_hold(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    queue: Bounded[int] = Bounded(5.0, 100, clock=clock)
    put, used, held = 0, 0, []
    for step, value in steps:
        if step == "put":
            queue.put(put, value)
            put += 1
        elif step == "take":
            used += len(held)
            held = queue.take(0, value)
        elif step == "back":
            queue.give_back(held)
            held = []
        else:
            clock.now_s += value / 10
        waiting = len(queue)
        assert put == used + len(held) + waiting + sum(queue.dropped.values())
        assert sum(entry.size_bytes for entry in queue._entries) == queue._bytes <= 100
