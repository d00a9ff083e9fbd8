"""Video files as sources of streams."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from buoy.errors import BuoyError
from buoy.streams.frame import Frame
from buoy.streams.progress import Past, Progress, Spot
from buoy.streams.sources import video
from support.reading import nothing_left_behind, reading, stamped
from support.rtsp import moving_bar
from support.stamp import Stamp, read_stamp, stamp

BAR = moving_bar(5)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left_behind():
        yield


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
