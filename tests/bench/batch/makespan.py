"""How long many pilots take together, over what the work alone would take: the real pilots on a played clock.

Objects take 0.25 s on average, those of one camera three times as long as the others', which no estimate knows; one
takes thirty times as long. Pilots are unequally fast (a tenth around the mean), begin after 20 s (pull an image, load a
model), and each of their ledger requests takes 5 ms. Beside them, computed: as many contiguous ranges as workers, and a
job for each cell and for each file, with the same start each.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from batch.simulation import Faults, World
from bench.book import Book
from buoy.batch.area import Area
from buoy.batch.cells import Costs, plan_bounds
from buoy.batch.control import Control
from buoy.batch.layout import PLAN
from buoy.batch.ledger import Ledger
from buoy.batch.manifest import Row
from buoy.batch.pilot import Done, Pace, Pilot
from buoy.store import Object, Page

__all__ = ["makespan"]

_MEAN_S, _START_S, _REQUEST_S, _IDEAL_S = 0.25, 20.0, 0.005, 1200.0
#: The runner yields about so often, as far as the pilot's own clock can tell.
_STRIDE_S = 5.0

Seconds = NDArray[np.float64]


def makespan(book: Book) -> None:
    """50 and 200 pilots over what takes them twenty minutes."""
    for pilots, goal in ((50, "<= 1.1"), (200, "<= 1.2")):
        chance = np.random.default_rng(pilots)
        items = _items(int(pilots * _IDEAL_S / _MEAN_S), chance)
        speeds = chance.normal(1.0, 0.1, pilots).clip(0.7, 1.3).tolist()
        ideal_s = float(items.sum() / sum(speeds))
        bounds = _bounds(items, pilots)
        took_s, requests = _play(items, speeds, bounds)
        row = f"makespan over ideal, {pilots} pilots"
        book.add(row, "buoy", took_s / ideal_s, "x", goal=goal,
                 note=f"{len(items):,} objects, {len(bounds) - 1:,} cells, ideal {ideal_s:.0f} s,"
                 f" {requests / len(items):.3f} ledger requests for each object")  # fmt: skip
        ranges = np.array_split(items, pilots)
        static_s = max(_START_S + float(part.sum()) / speed for part, speed in zip(ranges, speeds, strict=True))
        book.add(row, "static ranges", static_s / ideal_s, "x")
        cells = [float(each.sum()) for each in np.split(items, bounds[1:-1])]
        book.add(row, "a job for each cell", _in_turn(cells, speeds) / ideal_s, "x")
        book.add(row, "a job for each file", _in_turn(items.tolist(), speeds) / ideal_s, "x")


def _items(number: int, chance: np.random.Generator) -> Seconds:
    items: Seconds = chance.lognormal(0.0, 0.5, number)
    items[number // 3 : number // 2] *= 3.0
    items *= _MEAN_S / items.mean()
    items[int(number * 0.97)] = 30 * _MEAN_S
    return items


def _bounds(items: Seconds, pilots: int) -> list[int]:
    rows = (Row(number, "a.jpg", 900_000, "e", 0.0) for number in range(len(items)))
    return plan_bounds(rows, Costs({}, _MEAN_S), total_s=len(items) * _MEAN_S, pilots=pilots, round_trip_s=_REQUEST_S)


def _in_turn(jobs: Iterable[float], speeds: Sequence[float]) -> float:
    """Each worker takes the next job, with a start of its own, as soon as it is free."""
    free = [(0.0, speed) for speed in speeds]
    heapq.heapify(free)
    for job in jobs:
        at_s, speed = heapq.heappop(free)
        heapq.heappush(free, (at_s + (_START_S + job) / speed, speed))
    return max(at_s for at_s, _ in free)


def _play(items: Seconds, speeds: Sequence[float], bounds: list[int]) -> tuple[float, int]:
    """When the last cell ended, and how many requests the ledger had."""
    world = _Archive(1)
    area = Area(world, "run")  # type: ignore[arg-type]
    ledgers = [Ledger(area, world, world.random, parallel=1) for _ in range(len(speeds) + 1)]

    def begin() -> None:
        ledgers[-1].create(PLAN, {"bounds": bounds})
        Control(ledgers[-1]).give("running", by="bench", pilots=len(speeds))

    def pilot(number: int) -> Callable[[], Any]:
        name = f"pilot-{number:03d}"
        runner = _Runner(world, items, speeds[number])
        working = Pilot(
            ledgers[number], world, Random(number), runner, _Rows(), name=name, encode=_nothing, pace=Pace()
        )

        def run() -> Any:
            world.sleep(_START_S + number / len(speeds))
            return working.run()

        return run

    world.start("person", begin)
    for number in range(len(speeds)):
        world.start(f"pilot-{number:03d}", pilot(number))
    world.run()
    return world.last_fin_s, sum(each.patience.requests for each in ledgers[:-1])


class _Archive(World):
    """The played world without faults, and with a store that is quick with many keys."""

    most_steps, until_s = 20_000_000, 100_000.0

    def __init__(self, seed: int) -> None:
        super().__init__(seed, Faults())
        self.last_fin_s = 0.0
        self._keys: list[str] = []

    def put(self, bucket: str, key: str, body: bytes | Path | BinaryIO, *, create_only: bool = False) -> Object:
        known = key in self.objects
        found = super().put(bucket, key, body, create_only=create_only)
        if not known:
            insort(self._keys, key)
        if key.startswith("fin/"):
            self.last_fin_s = self.now_s
        return found

    def _call(self, effect: Callable[[], Any], changes: bool = False) -> Any:
        self.give_way(_REQUEST_S)
        return effect()

    def _list(self, prefix: str, after: str) -> Page:
        found = []
        for key in self._keys[bisect_right(self._keys, max(prefix, after)) :]:
            if not key.startswith(prefix):
                break
            found.append(self._object(key, self.objects[key][-1]))
        return Page(found, "")


class _Rows:
    def read(self, start: int, stop: int) -> Sequence[int]:
        return range(start, stop)


class _Runner:
    """Takes the time that the objects take."""

    def __init__(self, world: World, items: Seconds, speed: float) -> None:
        self._world, self._items, self._speed = world, items, speed

    def run(self, rows: Sequence[Any], stopping: Callable[[], bool]) -> Iterator[Done | None]:
        waiting: list[int] = []
        spent_s = 0.0
        for row in rows:
            waiting.append(row)
            spent_s += float(self._items[row]) / self._speed
            if spent_s >= _STRIDE_S or row == rows[-1]:
                self._world.sleep(spent_s)
                yield from (Done(each, "ok", "", []) for each in waiting)
                waiting, spent_s = [], 0.0

    def killer(self, row: Any) -> Done:
        raise AssertionError("nobody dies here")


def _nothing(done: Sequence[Done]) -> bytes:
    return b"rows"
