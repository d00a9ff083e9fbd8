"""The hand-over between reading and looking: what is dropped, why, and that every frame is accounted for."""

from __future__ import annotations

import random
import threading

import pytest

from buoy.streams.frame import Frame
from buoy.streams.slot import Slot
from support.reading import Counts, until


def frame(number: int, at_s: float = 0.0, position_s: float | None = None) -> Frame:
    return Frame("camera", number, b"", at_s, at_s, position_s)


def test_live_keeps_the_newest_only() -> None:
    counts, ready = Counts(), []
    slot = Slot("live", counts, ready=lambda: ready.append(1))
    for number in range(3):
        assert slot.put(frame(number))
    taken = slot.take()
    assert taken is not None
    assert taken.number == 2
    assert slot.take() is None
    assert counts.drops == {"newer": 2}
    assert len(ready) == 3


def test_file_waits_for_room_and_drops_nothing() -> None:
    counts = Counts()
    slot = Slot("file", counts)
    thread = threading.Thread(target=lambda: [slot.put(frame(number)) for number in range(50)])
    thread.start()
    until(lambda: len(slot) == 2)
    numbers = []
    while len(numbers) < 50:
        if taken := slot.take(1.0):
            numbers.append(taken.number)
        assert len(slot) <= 2
    thread.join()
    assert numbers == list(range(50))
    assert not counts.drops


def test_closing_drops_what_waits_and_frees_who_waits() -> None:
    counts, answers = Counts(), []
    slot = Slot("file", counts)
    thread = threading.Thread(target=lambda: answers.extend(slot.put(frame(number)) for number in range(3)))
    thread.start()
    until(lambda: len(slot) == 2)
    slot.close()
    thread.join()
    assert answers == [True, True, False]
    assert slot.take(0.01) is None
    assert counts.drops == {"shut": 3}


@pytest.mark.parametrize("policy", ["live", "file"])
def test_sampling_takes_one_frame_in_so_many_seconds_without_drifting(policy: str) -> None:
    counts = Counts()
    slot = Slot("live" if policy == "live" else "file", counts, every_s=1.0)
    taken = []
    for number in range(300):  # 30 a second, not exactly
        slot.put(frame(number, number / 30 + random.Random(number).uniform(0, 0.01)))
        if (found := slot.take()) is not None:
            taken.append(found.number)
    assert len(taken) == 10
    assert all(abs(number - 30 * i) <= 1 for i, number in enumerate(taken))
    assert counts.drops == {"sampling": 290}


def test_sampling_of_a_file_goes_by_its_position_and_survives_a_clock_that_goes_back() -> None:
    slot = Slot("file", Counts(), every_s=10.0)
    taken = []
    for number, position_s in enumerate([0.0, 9.9, 10.0, 15.0, 20.0, 500.0, 505.0, 3.0, 4.0, 13.0]):
        slot.put(frame(number, 0.0, position_s))
        if (found := slot.take()) is not None:
            taken.append(found.position_s)
    assert taken == [0.0, 10.0, 20.0, 500.0, 3.0, 13.0]


@pytest.mark.parametrize("policy", ["live", "file"])
def test_every_frame_is_accounted_for_whoever_comes_when(policy: str) -> None:
    counts, taken = Counts(), []
    slot = Slot("live" if policy == "live" else "file", counts)
    over = threading.Event()

    def put() -> None:
        for number in range(2000):
            counts.received()
            if not slot.put(frame(number)):
                return

    def take() -> None:
        while not over.is_set():
            if found := slot.take(0.01):
                taken.append(found.number)

    threads = [threading.Thread(target=each) for each in (put, take, take)]
    for thread in threads:
        thread.start()
    if policy == "file":
        threads[0].join()
    else:
        until(lambda: counts.frames > 500)
    slot.close()
    threads[0].join()
    over.set()
    for thread in threads[1:]:
        thread.join()
    assert counts.frames == len(taken) + counts.drops.total()
    assert len(taken) == len(set(taken))
