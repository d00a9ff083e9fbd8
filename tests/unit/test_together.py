"""Work that comes while all callers are busy is run together, and nobody waits for company."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from buoy.together import Together


class Doubler:
    """Doubles numbers, remembers the batches, and waits in each run until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.inside = threading.Semaphore(0)

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.inside.release()
        assert self.go.wait(30)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


def test_one_alone_is_run_at_once_and_alone() -> None:
    doubler = Doubler()
    together = Together(doubler, callers=1, most=8)
    assert [together.run(number) for number in range(3)] == [(0, 1), (2, 1), (4, 1)]


def test_what_came_while_the_caller_was_busy_runs_together() -> None:
    doubler = Doubler()
    doubler.go.clear()
    together = Together(doubler, callers=1, most=3)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(together.run, 0)
        assert doubler.inside.acquire(timeout=30)
        rest = []
        for number in range(1, 6):  # in this order
            rest.append(pool.submit(together.run, number))
            while len(together._waiting) < number:
                time.sleep(0.001)
        doubler.go.set()
        assert first.result() == (0, 1)
        assert [each.result() for each in rest] == [(2, 3), (4, 3), (6, 3), (8, 2), (10, 2)]
    assert doubler.batches == [[0], [1, 2, 3], [4, 5]]


def test_a_fault_is_the_fault_of_its_own_work_only() -> None:
    doubler = Doubler()
    doubler.go.clear()
    together = Together(doubler, callers=1, most=4)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together.run, 0)
        assert doubler.inside.acquire(timeout=30)
        others = [pool.submit(together.run, number) for number in (7, 13, 8)]
        while len(together._waiting) < 3:
            time.sleep(0.001)
        doubler.go.set()
        assert first.result().found == 0
        assert others[0].result().found == 14
        assert others[2].result().found == 16
        with pytest.raises(ValueError, match="thirteen"):
            others[1].result()
    assert together.run(1) == (2, 1)  # nothing is stuck


@pytest.mark.parametrize("callers", [1, 2, 3])
def test_each_gets_its_own_whatever_the_order(callers: int) -> None:
    most_at_once, at_once, lock = 0, 0, threading.Lock()

    def run(numbers: Sequence[int]) -> list[int]:
        nonlocal most_at_once, at_once
        with lock:
            at_once += 1
            most_at_once = max(most_at_once, at_once)
        time.sleep(random.random() / 2000)
        with lock:
            at_once -= 1
        return [number * 7 for number in numbers]

    together = Together(run, callers=callers, most=4)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(together.run, range(600)))
    assert [each.found for each in found] == [number * 7 for number in range(600)]
    assert most_at_once <= callers
    assert max(each.together for each in found) <= 4
    assert not together._waiting
    assert together._running == 0
