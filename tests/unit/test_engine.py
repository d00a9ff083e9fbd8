import contextlib
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from buoy import Engine, Input, Model
from buoy.errors import InputError
from buoy.results import Failure, Result
from support.tiny import make_model, picture_with_squares, png


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.open(make_model(tmp_path_factory.mktemp("models")), callers=2) as engine:
        yield engine


def test_outcomes_come_in_order_and_belong_to_their_input(engine: Engine) -> None:
    cells = [(row, column) for row in range(4) for column in range(4)]
    inputs = [Input(f"{row}{column}", png(picture_with_squares((row, column)))) for row, column in cells] * 5
    outcomes = list(engine.map(inputs))
    assert [outcome.input for outcome in outcomes] == inputs
    for outcome, (row, column) in zip(outcomes, cells * 5, strict=True):
        assert isinstance(outcome.record, Result)
        assert outcome.record.detections
        assert outcome.record.detections[0].box[:2] == (column * 16, row * 16)


def test_a_failure_is_a_value_and_the_others_go_on(engine: Engine, tmp_path: Path) -> None:
    good = png(picture_with_squares((0, 0)))
    told = InputError("a fault of the source", "mend it")
    inputs = [Input("a", good), Input("b", b""), Input("c", tmp_path / "absent"), Input("d", told), Input("e", good)]
    outcomes = list(engine.map(inputs))
    assert [outcome.failed for outcome in outcomes] == [False, True, True, True, False]
    messages = [outcome.record.error.message for outcome in outcomes if isinstance(outcome.record, Failure)]
    assert "empty" in messages[0]
    assert "no such file" in messages[1]
    assert messages[2] == "a fault of the source"


def test_inputs_are_taken_only_as_lanes_become_free(engine: Engine) -> None:
    taken = 0

    def source() -> Iterator[Input]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield Input(str(number), b"")

    outcomes = engine.map(source())
    next(outcomes)
    assert taken <= engine.lanes * 2 + 1
    outcomes.close()
    assert taken <= engine.lanes * 2 + 1


def test_an_error_in_the_source_reaches_the_caller(engine: Engine) -> None:
    def source() -> Iterator[Input]:
        yield Input("a", b"")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        list(engine.map(source()))


def test_pictures_are_kept_only_when_asked(tmp_path: Path) -> None:
    home, data = make_model(tmp_path), png(picture_with_squares((0, 0)))
    for keep in (True, False):
        with Engine.open(home, keep_pixels=keep) as engine:
            (outcome,) = engine.map([Input("a", data)])
            assert (outcome.pixels is not None) == keep


def test_no_more_callers_run_the_network_at_once_than_it_was_loaded_for(tmp_path: Path) -> None:
    model = Model.load(make_model(tmp_path), threads=1, callers=2)
    inside, most, lock = 0, 0, threading.Lock()
    run = model.session._session.run

    class Watched:
        def run(self, *arguments: object) -> object:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=0.5)  # holds the first until others have come, or none comes
            with lock:
                inside -= 1
            return run(*arguments)

    barrier = threading.Barrier(3)
    model.session._session = Watched()  # type: ignore[assignment]
    data = png(picture_with_squares((0, 0)))
    threads = [threading.Thread(target=model.predict, args=(data,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_pictures_that_come_together_are_run_together_and_each_gets_its_own(tmp_path: Path) -> None:
    folder = make_model(tmp_path, batch="n", run={"callers": 1, "threads": 1, "batch": 4})
    alone = Model.load(make_model(tmp_path / "alone"))
    pictures = [png(picture_with_squares((number % 4, number // 4 % 4), red=number % 3 == 0)) for number in range(60)]
    with Engine.open(folder) as engine:
        together = engine.model.session._together
        run = together._run

        def long_enough(tensors: Any) -> Any:  # for others to come meanwhile
            time.sleep(0.02)
            return run(tensors)

        together._run = long_enough
        outcomes = list(engine.map(Input(str(number), data) for number, data in enumerate(pictures)))
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome.record, Result)
        assert outcome.record.detections == alone.predict(pictures[number]).detections
    batches = [outcome.record.run.batch for outcome in outcomes if isinstance(outcome.record, Result)]
    assert 1 < max(batches) <= 4


def test_a_reduced_picture_gives_boxes_of_the_full_one_and_says_so(tmp_path: Path) -> None:
    folder = make_model(tmp_path, input={"size": [64, 64], "decode": "reduced"})
    large = np.repeat(np.repeat(picture_with_squares((1, 2)), 8, axis=0), 8, axis=1)
    out = io.BytesIO()
    Image.fromarray(large).save(out, "JPEG", quality=95)
    (found,) = (result := Model.load(folder).predict(out.getvalue())).detections or []
    assert result.parameters["decode"] == "reduced"
    assert (result.input.width, result.input.height) == (512, 512)
    assert found.box == (256, 128, 384, 256)
