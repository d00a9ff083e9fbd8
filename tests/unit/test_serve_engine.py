"""The engine's `submit`: bounded, with deadlines, and a future that can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from buoy import Engine, Input, Model
from buoy.errors import BusyError
from buoy.results import Failure, Result
from buoy.tasks import Thresholds
from support.tiny import make_model, picture_with_squares, png

DATA = png(picture_with_squares((0, 0)))


class Held:
    """An engine of one lane that waits before every run until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.go = threading.Event()
        self.inside = threading.Semaphore(0)
        self.seen: list[str] = []
        self.engine = Engine(Model.load(make_model(folder), threads=1, callers=1), queue=3)
        look = self.engine.model.look

        def held(*arguments: object, **settings: object) -> object:
            self.inside.release()
            assert self.go.wait(30)
            self.seen.append(str(settings["name"]))
            return look(*arguments, **settings)  # type: ignore[arg-type]

        self.engine.model.look = held  # type: ignore[method-assign, assignment]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path)
    yield held
    held.go.set()
    held.engine.close()


def test_a_full_queue_refuses(held: Held) -> None:
    running = held.engine.submit(Input("0", DATA))
    assert held.inside.acquire(timeout=30)
    waiting = [held.engine.submit(Input(str(number), DATA)) for number in (1, 2, 3)]
    with pytest.raises(BusyError) as refused:
        held.engine.submit(Input("4", DATA))
    assert refused.value.retry_after_s > 0
    held.go.set()
    assert [future.result(30).record.input.name for future in (running, *waiting)] == ["0", "1", "2", "3"]


def test_a_cancelled_input_is_not_looked_at_and_makes_room(held: Held) -> None:
    held.engine.submit(Input("0", DATA))
    assert held.inside.acquire(timeout=30)
    for _ in range(50):  # more than fit: each leaves its place
        assert held.engine.submit(Input("cancelled", DATA)).cancel()
    last = held.engine.submit(Input("1", DATA))
    assert held.engine.pending == 2
    held.go.set()
    assert isinstance(last.result(30).record, Result)
    assert held.seen == ["0", "1"]


def test_an_input_that_a_lane_has_taken_cannot_be_cancelled(held: Held) -> None:
    future = held.engine.submit(Input("0", DATA))
    assert held.inside.acquire(timeout=30)
    assert not future.cancel()
    held.go.set()
    assert isinstance(future.result(30).record, Result)


def test_an_input_that_waited_in_vain_is_dropped_before_inference(held: Held) -> None:
    held.engine.submit(Input("0", DATA))
    assert held.inside.acquire(timeout=30)
    late = held.engine.submit(Input("late", DATA), deadline_s=0.01)
    threading.Event().wait(0.05)
    held.go.set()
    record = late.result(30).record
    assert isinstance(record, Failure)
    assert record.error.class_ == "DeadlineError"
    assert "late" not in held.seen


def test_each_input_may_have_its_own_thresholds_and_keep_its_picture(tmp_path: Path) -> None:
    with Engine.open(make_model(tmp_path)) as engine:
        plain = engine.submit(Input("a", DATA)).result(30)
        other = engine.submit(Input("a", DATA), thresholds=Thresholds(0.9, 0.1), keep_pixels=True).result(30)
    assert isinstance(plain.record, Result)
    assert isinstance(other.record, Result)
    assert plain.pixels is None
    assert other.pixels is not None
    assert (plain.record.parameters["score"], other.record.parameters["score"]) == (0.5, 0.9)
