"""MJPEG over HTTP as a source of streams."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from buoy.streams.backoff import Backoff
from support.mjpeg import mjpeg_camera, stamped_jpeg
from support.reading import nothing_left_behind, reading, stamped, until
from support.rtsp import free_port, moving_bar

BAR = moving_bar(5)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.mark.parametrize("length", [True, False], ids=["with-lengths", "without-lengths"])
def test_mjpeg_gives_each_picture_at_once(length: bool) -> None:
    with mjpeg_camera(fps=5.0, length=length) as camera, reading(camera.url) as stream:
        frames = stream.take(6)
        stamps = [stamped(frame) for frame in frames]
        assert [each.number for each in stamps] == list(range(6))
        # Without a length the end of a picture must be seen in it: waiting for the next part would cost 0.2 s.
        assert all(frame.captured_s - made.clock_s < 0.15 for frame, made in zip(frames, stamps, strict=True))


@pytest.mark.parametrize("digest", [False, True], ids=["basic", "digest"])
def test_mjpeg_passwords(digest: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with mjpeg_camera(user="me", password="p@s:s", digest=digest) as camera:
        with reading(camera.url.replace("//", "//me:p%40s%3As@")) as stream:
            stream.take(2)
        with reading(camera.url.replace("//", "//me:sesame-7@"), backoff=Backoff(0.05, 0.1)) as stream:
            refused = stream.wait("refused")
            time.sleep(0.5)
            assert stream.told == ["connecting", "refused"]
        assert "401" in refused.reason
    assert "sesame" not in str(stream.states) + "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("buoy")
    )


@pytest.mark.parametrize(
    ("settings", "path", "reason"),
    [({}, "-2", "404"), ({"content_type": "text/html"}, "", "text/html, not MJPEG")],
    ids=["not-there", "a-page"],
)
def test_mjpeg_refusals_are_told_apart(settings: dict[str, object], path: str, reason: str) -> None:
    with mjpeg_camera(**settings) as camera, reading(camera.url + path) as stream:
        assert reason in stream.wait("refused").reason


def test_mjpeg_that_ends_is_a_gap_and_comes_back() -> None:
    with mjpeg_camera(frames=5) as camera, reading(camera.url) as stream:
        stream.wait("live", 3)
        assert stream.wait("gap").reason == "the server ended the stream"
        stream.take()
    assert camera.served >= 3
    assert stream.counts.reconnects >= 2


def test_mjpeg_cut_in_the_middle_of_a_picture_gives_no_half_picture() -> None:
    jpeg = stamped_jpeg(BAR[0], 7)

    def cut(write: Callable[[bytes], object]) -> None:
        for _ in range(3):
            write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg))
        write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s" % (len(jpeg), jpeg[:2000]))

    with mjpeg_camera(body=cut) as camera, reading(camera.url, policy="file") as stream:
        for frame in stream.take(7):
            assert stamped(frame).number == 7


def test_mjpeg_part_without_end_costs_bounded_memory_and_is_a_gap() -> None:
    sent = [0]

    def endless(write: Callable[[bytes], object]) -> None:
        write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8")
        while True:
            write(bytes(1 << 20))
            sent[0] += 1

    with mjpeg_camera(body=endless) as camera, reading(camera.url) as stream:
        assert "more than 16 MiB" in stream.wait("gap").reason
        before, had = psutil.Process().memory_info().rss, sent[0]
        until(lambda: sent[0] > had + 250)
        assert psutil.Process().memory_info().rss - before < 100 << 20
        assert len(stream.states) == 2


def test_mjpeg_server_that_falls_silent_is_noticed() -> None:
    def silent(write: Callable[[bytes], object]) -> None:
        jpeg = stamped_jpeg(BAR[0], 1)
        write(b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg))
        time.sleep(4.5)

    with mjpeg_camera(body=silent) as camera, reading(camera.url) as stream:
        stream.take()
        gap = stream.wait("gap")
        assert time.time() - gap.since_s < 5.5
        assert gap.reason in ("nothing came for 4 s", "the server is silent")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_accepts_and_says_nothing_does_not_hold_up_the_end(scheme: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        reading(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/camera") as stream,
    ):
        until(lambda: any(each.name == "source-camera" for each in threading.enumerate()))
        began = time.monotonic()
        time.sleep(0.3)
        stream.reader.stop()
        # Cut off, rather than waited for until its time is over.
        until(lambda: not any(each.name == "source-camera" for each in threading.enumerate()))
        assert time.monotonic() - began < 3.9


def test_secrets_in_the_query_are_masked_too() -> None:
    with reading(f"http://127.0.0.1:{free_port()}/camera?user=me&pwd=sesame-7") as stream:
        stream.wait("gap")
    assert "sesame" not in str(stream.states)
