"""Several streams, and requests, at one engine: fair, newest first, in order, and balanced."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buoy.engine import Engine, Input, Outcome
from buoy.model import Model
from buoy.streams.account import Account
from buoy.streams.dispatch import Dispatch, Order
from buoy.streams.frame import Frame
from buoy.streams.slot import Policy, Slot
from buoy.tasks import Thresholds
from support.tiny import make_model, picture_with_squares, png

DATA = png(picture_with_squares((0, 0)))


def until(true: Callable[[], bool]) -> None:
    """Wait for something; fails where it does not come."""
    for _ in range(30_000):
        if true():
            return
        time.sleep(0.001)
    raise TimeoutError


class Camera:
    """A stream without a source: frames come when the test says so, and results stay until it collects them."""

    def __init__(self, name: str, dispatch: Dispatch, policy: Policy = "live", most: int = 1000) -> None:
        self.name = name
        self.account = Account()
        self.slot = Slot(policy, self.account, ready=dispatch.wake)
        self.order = Order(most)
        self.thresholds: Thresholds | None = None
        self.number = 0
        dispatch.add(self)

    def keeps_pixels(self) -> bool:
        return False

    def give(self, count: int = 1) -> None:
        for _ in range(count):
            self.account.received()
            self.slot.put(Frame(self.name, self.number, DATA, time.time(), time.monotonic()))
            self.number += 1

    def collect(self, timeout_s: float = 0.0) -> int | None:
        """The number of the next frame with a result."""
        taken = self.order.collect(timeout_s)
        if taken is None:
            return None
        self.account.processed()
        self.order.release()
        return taken.frame.number


class Held:
    """A real engine in which each look waits until it is let go, and says what it looked at."""

    def __init__(self, folder: Path, lanes: int) -> None:
        self.engine = Engine(Model.load(make_model(folder), threads=1, callers=lanes))
        self.dispatch = Dispatch(self.engine)
        self.seen: list[str] = []
        self._changed = threading.Condition()
        self._inside: list[str] = []
        self._let: set[str] = set()
        self._open = False
        look = self.engine.model.look

        def held(*arguments: Any, **named: Any) -> Any:
            name = named["name"]
            with self._changed:
                self.seen.append(name)
                self._inside.append(name)
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: name in self._let or self._open, 60)
            try:
                return look(*arguments, **named)
            finally:
                with self._changed:
                    self._inside.remove(name)
                    self._changed.notify_all()

        self.engine.model.look = held  # type: ignore[method-assign, assignment]

    def inside(self, count: int) -> list[str]:
        """Wait until so many are looked at; their names."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._inside) == count, 60), self._inside
            return list(self._inside)

    def let_go(self, name: str) -> None:
        """Finish one look."""
        with self._changed:
            self._let.add(name)
            self._changed.notify_all()

    def step(self) -> str:
        """Finish the one that is looked at, and wait for the next to be."""
        (name,) = self.inside(1)
        before = len(self.seen)
        self.let_go(name)
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) > before, 60)
            return self.seen[-1]

    def open(self) -> None:
        """Hold nothing any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()


@contextmanager
def held(folder: Path, lanes: int = 1) -> Iterator[Held]:
    each = Held(folder, lanes)
    try:
        yield each
    finally:
        each.open()
        each.engine.close()


def streams_of(names: list[str]) -> list[str]:
    return [name.split("/")[0] for name in names]


def test_streams_take_turns(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        cameras = [Camera(name, at.dispatch) for name in "abc"]
        for camera in cameras:
            camera.give()
        for _ in range(29):
            for camera in cameras:
                camera.give()
            at.step()
        assert streams_of(at.seen)[1:] == list("bcabcabcabcabcabcabcabcabcabc")


def test_a_stream_with_ten_times_the_frames_gets_no_more_turns(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        fast, slow = Camera("fast", at.dispatch), Camera("slow", at.dispatch)
        fast.give()
        for _ in range(20):
            fast.give(10)
            slow.give()
            at.step()
        turns = Counter(streams_of(at.seen))
    assert abs(turns["fast"] - turns["slow"]) <= 1


def test_the_frame_that_is_looked_at_is_the_newest_there_is(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        camera = Camera("a", at.dispatch)
        camera.give()
        at.inside(1)
        for step in range(1, 20):
            camera.give(3)  # three times too fast
            assert int(at.step().split("/")[1]) == 3 * step  # so never older than the latest
        at.open()
        until(lambda: len(camera.order) == 20 and all(each.outcome for each in camera.order._line))
        assert [camera.collect() for _ in range(20)] == [3 * step for step in range(20)]
    counts = camera.account.counts()
    assert (counts["received"], counts["processed"], counts["in_flight"]) == (58, 20, 0)
    assert counts["dropped"] == {"newer": 38}


def test_a_frame_that_comes_while_its_stream_waits_in_line_is_the_one_that_is_taken(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        requests = [at.engine.submit(Input(name, DATA)) for name in ("r0", "r1")]
        at.inside(1)
        camera = Camera("a", at.dispatch)
        camera.give()  # the third in line
        assert at.step() == "r1"
        camera.give(5)
        assert at.step() == "a/000000005"
        at.open()
        assert not any(request.result().failed for request in requests)


def test_one_stream_may_use_every_lane_and_all_together_no_more(tmp_path: Path) -> None:
    with held(tmp_path, lanes=3) as at:
        first = Camera("a", at.dispatch)
        for count in (1, 2, 3):
            first.give()
            assert len(at.inside(count)) == count
        others = [Camera(name, at.dispatch) for name in "bc"]
        for camera in (first, *others):
            camera.give()
        assert at.engine.pending == 3
        assert all(len(camera.slot) == 1 for camera in (first, *others))
        at.open()
        until(lambda: at.engine.pending == 0)
        assert Counter(streams_of(at.seen)) == {"a": 4, "b": 1, "c": 1}


def test_requests_and_streams_share_the_engine(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        cameras = [Camera(name, at.dispatch) for name in "abc"]
        requests = 0

        def ask() -> None:
            """As the service does: no more requests than lanes and one."""
            nonlocal requests
            while sum(not future.done() for future in asked) < 2:
                asked.append(at.engine.submit(Input(f"request/{requests}", DATA)))
                requests += 1

        asked: list[Any] = []
        for _ in range(60):
            ask()
            for camera in cameras:
                camera.give()
            at.step()
        turns = Counter("request" if name.startswith("request") else "stream" for name in at.seen)
        at.open()
        for future in asked:
            assert not future.result(60).failed
    assert min(turns.values()) >= 0.3 * turns.total(), turns


def test_results_come_out_in_the_order_of_the_frames(tmp_path: Path) -> None:
    with held(tmp_path, lanes=2) as at:
        camera = Camera("a", at.dispatch)
        camera.give()
        at.inside(1)
        camera.give()
        first, second = at.inside(2)
        at.let_go(second)
        at.inside(1)
        camera.give()
        _, third = at.inside(2)
        assert camera.collect() is None
        at.let_go(third)
        at.inside(1)
        assert camera.collect() is None
        at.let_go(first)
        until(lambda: all(each.outcome for each in camera.order._line))
        assert [camera.collect() for _ in range(4)] == [0, 1, 2, None]


def test_nothing_is_taken_that_could_not_be_reported(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        at.open()
        camera, other = Camera("a", at.dispatch, most=2), Camera("b", at.dispatch)
        for number in range(5):
            camera.give()
            other.give()
            until(lambda number=number: len(other.order) == number + 1)  # type: ignore[misc]
        until(lambda: at.engine.pending == 0)
        assert [len(camera.order), len(camera.slot)] == [2, 1]
        assert camera.collect(10) == 0
        at.dispatch.wake()
        until(lambda: len(camera.order) == 2)
        assert [camera.collect(10), camera.collect(10)] == [1, 4]


def test_a_stream_that_leaves_takes_no_more_turns(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        staying, leaving = Camera("a", at.dispatch), Camera("b", at.dispatch)
        staying.give()
        at.inside(1)
        leaving.give()
        at.dispatch.remove(leaving)
        leaving.slot.close()
        staying.give()
        assert at.step() == "a/000000001"
        counts = leaving.account.counts()
        assert (counts["dropped"], counts["in_flight"]) == ({"shut": 1}, 0)


def test_a_frame_that_is_gone_when_its_turn_comes_costs_nobody_a_turn(tmp_path: Path) -> None:
    with held(tmp_path) as at:
        camera, other = Camera("a", at.dispatch), Camera("b", at.dispatch)
        request = at.engine.submit(Input("r", DATA))
        at.inside(1)
        camera.give()
        camera.slot.close()
        at.open()
        assert not request.result(60).failed
        until(lambda: at.engine.pending == 0)
        other.give()
        assert other.collect(60) == 0


def test_work_that_raises_keeps_the_lane(tmp_path: Path) -> None:
    with Engine(Model.load(make_model(tmp_path), threads=1, callers=1)) as engine:
        done = threading.Event()

        def fail() -> None:
            done.set()
            raise RuntimeError("as asked for")

        engine.lend(fail)
        outcome: Outcome = engine.submit(Input("x", DATA)).result(60)
        assert done.is_set()
        assert not outcome.failed


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.open(make_model(tmp_path_factory.mktemp("models")), callers=2) as engine:
        yield engine


SCHEDULE = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["give", "burst", "collect", "leave", "wait"])), max_size=40
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=SCHEDULE)
def test_counts_balance_under_any_schedule(engine: Engine, schedule: list[tuple[int, str]]) -> None:
    dispatch = Dispatch(engine)
    cameras = [Camera(name, dispatch, most=3) for name in "abc"]
    found: dict[str, list[int]] = {camera.name: [] for camera in cameras}

    def collect(camera: Camera, timeout_s: float = 0.0) -> None:
        number = camera.collect(timeout_s)
        dispatch.wake()
        found[camera.name] += [] if number is None else [number]

    for at, action in schedule:
        camera = cameras[at]
        if action in ("give", "burst"):
            camera.give(1 if action == "give" else 7)
        elif action == "collect":
            collect(camera)
        elif action == "leave":
            camera.slot.close()
        else:
            time.sleep(0.002)
        counts = camera.account.counts()
        assert counts["in_flight"] >= 0
        assert counts["received"] == counts["processed"] + sum(counts["dropped"].values()) + counts["in_flight"]
    for camera in cameras:
        while len(camera.slot) or len(camera.order):
            collect(camera, 0.01)
        counts = camera.account.counts()
        assert counts["in_flight"] == 0
        assert counts["processed"] == len(found[camera.name])
        assert found[camera.name] == sorted(set(found[camera.name]))
    until(lambda: engine.pending == 0)
