"""Sources of streams, each against a real server, a real file or a real folder."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from buoy.image import decode
from buoy.streams.frame import Frame
from support.reading import reading, until
from support.rtsp import RtspCamera, rtsp_camera
from support.stamp import Stamp, read_stamp


def stamped(frame: Frame) -> Stamp:
    loaded = frame.load()
    pixels = decode(loaded) if isinstance(loaded, bytes) else loaded
    assert isinstance(pixels, np.ndarray), pixels
    found = read_stamp(pixels)
    assert found is not None
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread outlives its stream by more than the library's own time-out, and no descriptor does."""
    gc.collect()
    before, open_before = set(threading.enumerate()), descriptors()
    yield
    until(
        lambda: not [each for each in threading.enumerate() if each not in before], lambda: str(threading.enumerate())
    )
    gc.collect()
    until(lambda: descriptors() <= open_before, lambda: f"{descriptors()} descriptors, {open_before} before")


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[RtspCamera]:
    with rtsp_camera(tmp_path / "rtsp") as started:
        yield started


def test_rtsp_gives_frames_in_order_with_their_times(camera: RtspCamera) -> None:
    with reading(camera.url) as stream:
        frames = stream.take(20)
    stamps = [stamped(frame) for frame in frames]
    assert stamps == sorted(stamps)
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    # All on one machine: no frame is older than a moment, and none is from the future.
    assert all(-0.01 < frame.captured_s - made.clock_s < 2 for frame, made in zip(frames, stamps, strict=True))
    assert frames[0].position_s is None
    assert frames[0].title == f"camera/{frames[0].number:09d}"
    assert stream.told == ["connecting", "live", "ended"]
