"""Sources of streams other than RTSP: MJPEG over HTTP, video files, folders that grow, clients that push."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest

from buoy.errors import BuoyError, InputError
from buoy.image import decode
from buoy.streams.backoff import Backoff
from buoy.streams.frame import Frame
from buoy.streams.progress import Past, Progress, Spot
from buoy.streams.sources import video
from support.mjpeg import mjpeg_camera, stamped_jpeg
from support.reading import nothing_left_behind, reading, stamped, until
from support.rtsp import free_port, moving_bar
from support.stamp import Stamp, read_stamp, stamp

BAR = moving_bar(5)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left_behind():
        yield


# MJPEG over HTTP


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


# Video files


def write_video(path: Path, frames: int, codec: str = "mpeg4", fps: int = 25, faststart: bool = True) -> Path:
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            picture = BAR[number % len(BAR)].copy()
            stamp(picture, number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_video_gives_every_frame_with_its_position(tmp_path: Path, codec: str) -> None:
    with reading(write_video(tmp_path / "a.mp4", 60, codec)) as stream:
        frames = stream.drain()
    assert [stamped(frame).number for frame in frames] == list(range(60))
    assert [frame.number for frame in frames] == list(range(60))
    assert [frame.position_s for frame in frames] == pytest.approx([number / 25 for number in range(60)], abs=0.001)
    assert stream.counts.drops.total() == 0
    assert stream.told == ["connecting", "live", "ended"]
    assert stream.states[-1].reason == ""


def spot_of(frame: Frame) -> Spot:
    assert isinstance(frame.mark, Spot)
    return frame.mark


def past(frame: Frame) -> Progress:
    """As if this frame had been the latest that was told."""
    return Progress(Past(number=frame.number, clock_s=frame.clock_s, spot=spot_of(frame)))


@pytest.mark.parametrize("number", [0, 1, 58, 99, 119])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264")]
)
def test_a_video_goes_on_after_a_frame(tmp_path: Path, name: str, codec: str, number: int) -> None:
    path = write_video(tmp_path / name, 120, codec)
    with reading(path) as stream:
        whole = stream.drain()
    with reading(path, progress=past(whole[number])) as stream:
        rest = stream.drain()
    assert [stamped(frame).number for frame in rest] == list(range(number + 1, 120))
    for frame, before in zip(rest, whole[number + 1 :], strict=True):
        assert (frame.number, frame.position_s, frame.mark) == (before.number, before.position_s, before.mark)
    assert stream.counts.frames == 119 - number
    assert stream.states[-1].reason == ""


def test_a_long_video_is_not_decoded_from_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 300)
    with reading(path) as stream:
        whole = stream.drain()
    decoded = list[float | None]()
    real = video.frames_of

    def counting(packet: Any) -> Any:
        decoded.append(packet.pts)
        return real(packet)

    monkeypatch.setattr(video, "frames_of", counting)
    with reading(path, progress=past(whole[250])) as stream:
        assert len(stream.drain()) == 49
    assert len(decoded) < 70


def test_another_video_under_the_same_name_begins_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    with reading(path) as stream:
        whole = stream.drain()
    write_video(path, 30)
    with reading(path, progress=past(whole[9])) as stream:
        assert [stamped(frame).number for frame in stream.drain()] == list(range(30))


@pytest.mark.parametrize("number", [5, 40, -1])
def test_a_damaged_video_goes_on_by_counting(tmp_path: Path, number: int) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.pos]
    for at, size in places[20:60:15]:
        content[at : at + size] = bytes(size)
    path.write_bytes(content)
    with reading(path) as stream:
        whole = stream.drain()
    assert any(isinstance(frame.load(), BuoyError) for frame in whole)
    assert spot_of(whole[-1]).pts is None
    with reading(path, progress=past(whole[number])) as stream:
        rest = stream.drain()
    assert [frame.mark for frame in rest] == [frame.mark for frame in whole][number:][1:]
    assert stream.told[-1] == "ended"


def test_a_truncated_video_that_was_seen_to_its_end_ends(tmp_path: Path) -> None:
    content = write_video(tmp_path / "whole.mp4", 100).read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    with reading(tmp_path / "half.mp4") as stream:
        frames = stream.drain()
    with reading(tmp_path / "half.mp4", progress=past(frames[-1])) as stream:
        assert stream.drain() == []


def test_a_paced_video_goes_on_at_its_pace(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 80, fps=2)
    with reading(path) as stream:
        whole = stream.drain()
    began_s = time.monotonic()
    with reading(path, policy="live", progress=past(whole[77])) as stream:
        stream.drain()
        assert stream.counts.frames == 2
    assert time.monotonic() - began_s < 30  # what it has behind it would take 39 s


def test_sampling_goes_by_the_videos_own_clock(tmp_path: Path) -> None:
    with reading(write_video(tmp_path / "a.mp4", 100), every_s=1.0) as stream:
        frames = stream.drain()
    assert [stamped(frame).number for frame in frames] == [0, 25, 50, 75]
    assert stream.counts.drops == {"sampling": 96}


def test_a_video_under_the_live_policy_is_shown_at_its_own_pace(tmp_path: Path) -> None:
    began = time.monotonic()
    with reading(write_video(tmp_path / "a.mp4", 26), policy="live") as stream:
        stream.drain()
    assert time.monotonic() - began >= 1.0
    assert stream.counts.frames == 26


def test_real_clips_of_the_seafloor_are_read(samples_folder: Path) -> None:
    clip = sorted((samples_folder / "deepsea-video").glob("*.mp4"))[0]
    with reading(clip) as stream:
        frames = stream.drain()
        shapes = {getattr(frame.load(), "shape", None) for frame in frames[:2]}
    assert len(frames) >= 25
    assert len(shapes) == 1
    assert stream.counts.drops.total() == 0


@pytest.fixture
def samples_folder() -> Path:
    from support.need import samples

    return samples()


def test_colours_are_those_that_were_filmed(tmp_path: Path) -> None:
    colours = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 210], [200, 200, 200]], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 90, axis=1), 360, axis=0)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 360, 360, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with reading(path) as read:
        pixels = read.drain()[0].load()
    assert isinstance(pixels, np.ndarray)
    assert np.abs(pixels[180, 45::90].astype(int) - colours).max() <= 6


def test_a_video_that_was_filmed_upright_is_turned(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    content = path.read_bytes()
    # The matrix of the track header (ISO/IEC 14496-12, 8.3.2), for a quarter turn to the right.
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 360 << 16, 0, 1 << 30)
    at = content.index(plain, content.index(b"tkhd"))
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    with reading(path) as stream:
        pixels = stream.drain()[0].load()
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (640, 360, 3)
    # What was at the left is at the top, and what was at the top (the stamp) at the right.
    assert read_stamp(np.ascontiguousarray(np.rot90(pixels))) == read_stamp_of(path)


def read_stamp_of(path: Path) -> Stamp | None:
    with av.open(str(path)) as container:
        return read_stamp(next(container.decode(video=0)).to_ndarray(format="rgb24"))


@pytest.mark.parametrize("faststart", [True, False])
def test_a_truncated_video_gives_what_is_there_and_says_so(tmp_path: Path, faststart: bool) -> None:
    whole = write_video(tmp_path / "whole.mp4", 100, faststart=faststart)
    (tmp_path / "half.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with reading(tmp_path / "half.mp4") as stream:
        if not faststart:  # the index was at the end
            assert "no video that can be read" in stream.wait("refused").reason
            return
        frames = stream.drain()
    good = [frame for frame in frames if not isinstance(frame.load(), BuoyError)]
    assert 30 < len(good) < 60
    assert "header announces 4.0 s" in stream.states[-1].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"no video at all\n" * 500, "no video that can be read"), (None, "No such file")],
    ids=["empty", "text", "absent"],
)
def test_what_is_no_video_is_refused_with_the_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with reading(tmp_path / "a.mp4") as stream:
        assert reason in stream.wait("refused").reason


def test_a_video_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    content = write_video(tmp_path / "whole.mp4", 30).read_bytes()
    with (tmp_path / "a.mp4").open("wb") as file:
        file.write(content[:5000])
        file.flush()
        with reading(tmp_path / "a.mp4") as stream:
            assert "still writing" in stream.wait("gap").reason
            file.write(content[5000:])
            file.close()
            assert len(stream.drain()) == 30


# Folders


def put(folder: Path, name: str, number: int) -> None:
    """As a camera's FTP server writes: under another name, then renamed."""
    temp = folder / f".{name}"
    temp.write_bytes(stamped_jpeg(BAR[0], number))
    temp.rename(folder / name)


def test_a_folder_gives_what_is_there_by_age_and_then_what_comes(tmp_path: Path) -> None:
    for number, name in enumerate(["c.jpg", "a.jpg", "b.jpg"]):
        put(tmp_path, name, number)
        os.utime(tmp_path / name, (1_000_000 + number, 1_000_000 + number))
    (tmp_path / "list.txt").write_text("not a picture")
    with reading(tmp_path) as stream:
        first = stream.take(3)
        assert [frame.name for frame in first] == ["c.jpg", "a.jpg", "b.jpg"]
        assert [frame.captured_s for frame in first] == [1_000_000, 1_000_001, 1_000_002]
        for number in range(3, 40):
            put(tmp_path, f"{number}.jpg", number)
        (tmp_path / "day").mkdir()
        put(tmp_path / "day", "x.jpg", 40)
        later = stream.take(38)
        time.sleep(0.3)
        assert stream.slot.take() is None  # each once
    assert sorted(stamped(frame).number for frame in later) == list(range(3, 41))
    assert stream.told == ["connecting", "live", "ended"]


def test_a_picture_that_is_written_anew_under_its_name_is_another(tmp_path: Path) -> None:
    with reading(tmp_path) as stream:
        for number in range(5):
            put(tmp_path, "current.jpg", number)
            assert stamped(stream.take()[0]).number == number


def test_a_half_written_picture_waits_until_its_writer_has_closed_it(tmp_path: Path) -> None:
    jpeg = stamped_jpeg(BAR[0], 3)
    with reading(tmp_path) as stream:
        with (tmp_path / "a.jpg").open("wb") as file:
            for start in range(0, len(jpeg), len(jpeg) // 4):
                file.write(jpeg[start : start + len(jpeg) // 4])
                file.flush()
                time.sleep(0.1)
            assert stream.slot.take() is None
        assert stamped(stream.take()[0]).number == 3


def test_bad_pictures_come_as_they_are_and_the_next_one_follows(tmp_path: Path) -> None:
    with reading(tmp_path) as stream:
        (tmp_path / "a.jpg").write_bytes(b"")
        assert stream.take()[0].load() == b""
        with (tmp_path / "b.jpg").open("wb") as file:
            file.truncate(65 << 20)
        large = stream.take()[0].load()
        assert isinstance(large, InputError)
        assert "the limit is" in large.message
        (tmp_path / "link.jpg").symlink_to("/etc/passwd")
        put(tmp_path, "c.jpg", 1)
        assert stream.take()[0].name == "c.jpg"


def test_a_folder_that_is_taken_away_is_a_gap_and_gives_nothing_twice(tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    with reading(folder) as stream:
        assert "no such folder" in stream.wait("refused").reason
        folder.mkdir()
        put(folder, "a.jpg", 1)
        stream.take()
        folder.rename(tmp_path / "away")
        assert "gone" in stream.wait("gap").reason
        (tmp_path / "away").rename(folder)
        put(folder, "b.jpg", 2)
        assert stamped(stream.take()[0]).number == 2


def mark_of(frame: Frame) -> bytes:
    assert isinstance(frame.mark, bytes)
    return frame.mark


def test_a_folder_gives_only_what_was_not_told(tmp_path: Path) -> None:
    for number in range(6):
        put(tmp_path, f"{number}.jpg", number)
    with reading(tmp_path) as stream:
        frames = stream.take(6)
    told = b"".join(mark_of(frame) for frame in frames if frame.name not in ("2.jpg", "5.jpg"))
    put(tmp_path, "old.jpg", 6)
    os.utime(tmp_path / "old.jpg", (1_000_000, 1_000_000))  # moved in meanwhile with the time that it had
    put(tmp_path, "3.jpg", 7)
    with reading(tmp_path, progress=Progress(Past(number=5), told)) as stream:
        again = stream.take(4)
        assert {frame.name for frame in again} == {"old.jpg", "2.jpg", "5.jpg", "3.jpg"}
        assert [frame.number for frame in again] == [6, 7, 8, 9]
        put(tmp_path, "0.jpg", 8)
        assert stamped(stream.take()[0]).number == 8


def test_a_folder_tells_what_nobody_has_to_remember_any_more(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.jpg", number)
    progress = Progress()
    with reading(tmp_path, progress=progress) as stream:
        first, second, _ = stream.take(3)
    (tmp_path / "0.jpg").unlink()
    progress = Progress(Past(number=2), mark_of(first) + mark_of(second))
    with reading(tmp_path, progress=progress) as stream:
        stream.take()
        until(lambda: progress.news() == {"gone": mark_of(first).hex()})


def test_an_empty_folder_is_one_that_is_not_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    put(folder, "a.jpg", 1)
    with reading(folder) as stream:
        told = mark_of(stream.take()[0])
    folder.rename(tmp_path / "away")
    folder.mkdir()
    with reading(folder, progress=Progress(Past(), told)) as stream:
        time.sleep(0.3)
        (tmp_path / "away" / "a.jpg").rename(folder / "a.jpg")
        put(folder, "b.jpg", 2)
        assert stream.take()[0].name == "b.jpg"
        time.sleep(0.3)
        assert stream.slot.take() is None


def test_the_slower_side_of_a_folder_makes_the_reader_wait(tmp_path: Path) -> None:
    for number in range(30):
        put(tmp_path, f"{number:02d}.jpg", number)
    with reading(tmp_path) as stream:
        stream.wait("live")
        time.sleep(0.3)
        assert stream.counts.frames <= 4
        assert [frame.name for frame in stream.take(30)] == [f"{number:02d}.jpg" for number in range(30)]
    assert stream.counts.drops.total() == 0


# Clients that push


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
