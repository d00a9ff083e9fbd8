"""Lanes take work; the one that was busy last goes first."""

from __future__ import annotations

import threading
import time

import pytest

from buoy.lanes import Lanes


def test_one_after_the_other_is_done_by_one_thread() -> None:
    lanes, seen = Lanes(4), list[int]()
    for number in range(20):
        lanes.submit(lambda: seen.append(threading.get_ident()))
        while len(seen) <= number or not lanes._idle:  # done, and back to wait
            time.sleep(0.0005)
    lanes.close()
    assert len(set(seen)) == 1


def test_no_more_run_at_once_than_there_are_lanes_and_nothing_is_lost() -> None:
    lanes, lock, inside, most, done = Lanes(3), threading.Lock(), 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.001)
        with lock:
            inside -= 1
            done += 1

    for _ in range(100):
        lanes.submit(work)
    lanes.close()
    assert (done, inside) == (100, 0)
    assert most <= 3
    assert not any(lane.is_alive() for lane in lanes._lanes)
    with pytest.raises(RuntimeError):
        lanes.submit(work)


def test_a_fault_costs_no_lane(caplog: pytest.LogCaptureFixture) -> None:
    lanes, done = Lanes(1), threading.Event()
    lanes.submit(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    lanes.submit(done.set)
    assert done.wait(30)
    lanes.close()
    assert "fault in a lane" in caplog.text
