"""The reader with sources that do what no real one does on demand: hang in a call, come back late, fail oddly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

import pytest

from buoy.errors import SourceError
from buoy.streams import reader as reader_module
from buoy.streams.frame import Picture
from buoy.streams.sources.address import Peer
from buoy.streams.sources.halt import Halt
from support.reading import reading, until

Pictures = Generator[Picture | None]


class Played:
    """A source whose connections are functions, one after the other; the last again and again."""

    again = connects = True
    peer: Peer | None = None

    def __init__(self, *plays: Callable[[Halt], Pictures], silence_s: float = 0.2) -> None:
        self.silence_s: float | None = silence_s
        self.opened = 0
        self._plays = plays

    def pictures(self, halt: Halt) -> Pictures:
        self.opened += 1
        return self._plays[min(self.opened, len(self._plays)) - 1](halt)


def shows(halt: Halt) -> Pictures:
    while not halt.wait(0.01):
        yield Picture(b"x")


def fails(_: Halt) -> Pictures:
    raise SourceError("no connection: Connection refused")
    yield


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Played], None]:
    return lambda source: monkeypatch.setattr(reader_module, "open_source", lambda spec, progress: source)


def sources_running() -> int:
    return sum(each.name == "source-camera" for each in threading.enumerate())


def test_a_call_that_hangs_is_left_behind_and_what_it_brings_later_is_not_counted(
    play: Callable[[Played], None],
) -> None:
    released = threading.Event()

    def hangs(_: Halt) -> Pictures:
        yield Picture(b"first")
        released.wait()
        yield Picture(b"late")

    source = Played(hangs, shows)
    play(source)
    with reading("rtsp://camera/1", policy="file") as stream:
        assert stream.take()[0].load() == b"first"
        assert stream.wait("gap").reason == "nothing came for 0.2 s"
        stream.wait("live", 2)
        released.set()
        assert {frame.load() for frame in stream.take(30)} == {b"x"}
    until(lambda: not sources_running())


def test_calls_that_hang_for_ever_do_not_pile_up(play: Callable[[Played], None]) -> None:
    released = threading.Event()

    def hangs(_: Halt) -> Pictures:
        released.wait()
        yield None

    source = Played(hangs)
    play(source)
    with reading("rtsp://camera/1") as stream:
        until(lambda: source.opened == 2)
        time.sleep(1)
        assert source.opened == 2
        assert sources_running() == 2
        assert stream.told == ["connecting", "gap"]
        began = time.monotonic()
        stream.reader.stop()
        assert time.monotonic() - began < 10  # it does not wait for what hangs
        released.set()
    until(lambda: not sources_running())


def test_thousands_of_attempts_tell_one_gap(play: Callable[[Played], None]) -> None:
    source = Played(fails)
    play(source)
    with reading("rtsp://camera/1") as stream:
        stream.reader._backoff.low_s = stream.reader._backoff.high_s = 0.0001
        until(lambda: source.opened > 3000)
        assert stream.told == ["connecting", "gap"]
        assert threading.active_count() < 20


def test_data_without_pictures_is_a_gap(play: Callable[[Played], None]) -> None:
    def blind(halt: Halt) -> Pictures:
        yield Picture(b"x")
        while not halt.wait(0.01):
            yield None

    play(Played(blind))
    with reading("rtsp://camera/1") as stream:
        assert stream.wait("gap").reason == "data comes, but no picture can be made of it"
        assert "reader-camera" in {each.name for each in threading.enumerate()}


def test_waiting_for_the_one_who_looks_is_not_silence(play: Callable[[Played], None]) -> None:
    play(Played(shows))
    with reading("rtsp://camera/1", policy="file") as stream:
        stream.wait("live")
        time.sleep(0.8)
        assert stream.told == ["connecting", "live"]
        assert len(stream.take(10)) == 10


def test_a_fault_that_nobody_thought_of_is_a_gap_with_its_name(
    play: Callable[[Played], None], caplog: pytest.LogCaptureFixture
) -> None:
    def odd(_: Halt) -> Pictures:
        yield Picture(b"x")
        raise ZeroDivisionError("in rtsp://me:sesame@camera/1")

    play(Played(odd, shows))
    with reading("rtsp://camera/1") as stream:
        reason = stream.wait("gap").reason
        assert "ZeroDivisionError" in reason
        assert "Traceback" in caplog.text
        assert "sesame" not in reason + caplog.text
        stream.wait("live", 2)


def test_stop_before_the_first_picture_and_twice(play: Callable[[Played], None]) -> None:
    play(Played(shows))
    with reading("rtsp://camera/1") as stream:
        stream.reader.stop()
        stream.reader.stop()
    assert stream.told.count("ended") == 1
