"""Clients that push pictures as sources of streams."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest

from buoy.errors import InputError
from buoy.image import decode
from support.mjpeg import stamped_jpeg
from support.reading import nothing_left_behind, reading, stamped, until
from support.rtsp import moving_bar

BAR = moving_bar(5)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left_behind():
        yield


def test_pushed_pictures_come_through_and_a_pause_is_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    with reading("push:") as stream:
        stream.reader.push(stamped_jpeg(BAR[0], 1), 1_000_000.5)
        frame = stream.take()[0]
        assert stamped(frame).number == 1
        assert frame.captured_s == 1_000_000.5
        assert stream.wait("gap").reason == "nothing came for 4 s"
        stream.reader.push(stamped_jpeg(BAR[0], 2))
        assert stamped(stream.take()[0]).number == 2
        stream.wait("live", 2)
    assert stream.counts.reconnects == 1


def test_pushed_garbage_is_handed_on_for_the_engine_to_refuse() -> None:
    with reading("push:") as stream:
        stream.reader.push(b"garbage")
        loaded = stream.take()[0].load()
        assert isinstance(loaded, bytes)
        with pytest.raises(InputError):
            decode(loaded)


def test_pushing_faster_than_anyone_looks_is_counted() -> None:
    jpeg = cv2.imencode(".jpg", BAR[0])[1].tobytes()
    with reading("push:") as stream:
        for _ in range(500):
            stream.reader.push(jpeg)
        until(lambda: stream.counts.frames == 500)
    assert stream.counts.drops.total() == 500


def test_under_the_file_policy_pushes_beyond_what_may_wait_are_counted_as_such() -> None:
    with reading("push:", policy="file") as stream:
        for _ in range(100):
            stream.reader.push(b"x")
        stream.take(16)
        until(lambda: stream.counts.frames == 100)
    assert 60 <= stream.counts.drops["full"] <= 84
    assert set(stream.counts.drops) <= {"full", "shut"}
