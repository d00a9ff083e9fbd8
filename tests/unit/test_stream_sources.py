"""What needs no server: addresses and their secrets, waits, lateness, frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from buoy.errors import JobError, UsageError
from buoy.streams.backoff import Backoff
from buoy.streams.frame import Frame, utc
from buoy.streams.sources import mask, policy_of
from buoy.streams.sources.address import credentials, kind_of
from buoy.streams.sources.late import Late
from buoy.streams.spec import StreamSpec


@pytest.mark.parametrize(
    ("source", "kind", "policy"),
    [
        ("rtsp://camera/1", "rtsp", "live"),
        ("RTSPS://me:x@10.0.0.1:322/1", "rtsp", "live"),
        ("https://camera/video.mjpg", "http", "live"),
        ("push:", "push", "live"),
        ("/data/clip.mp4", "file", "file"),
        ("/data/pictures/", "folder", "file"),
        ("/data/pictures", "folder", "file"),
    ],
)
def test_the_address_tells_kind_and_policy(source: str, kind: str, policy: str) -> None:
    assert kind_of(source) == kind
    assert policy_of(StreamSpec(name="a", source=source)) == policy


def test_a_folder_is_one_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "2024.05").mkdir()
    (tmp_path / "clip").write_bytes(b"")
    assert kind_of(str(tmp_path / "2024.05")) == "folder"
    assert kind_of(str(tmp_path / "clip")) == "file"


@pytest.mark.parametrize("source", ["ftp://host/a.mp4", "concat:/etc/passwd|/b", "rtsp:///camera", "http://:80/x"])
def test_other_addresses_are_refused(source: str) -> None:
    with pytest.raises(UsageError):
        kind_of(source)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@camera:554/1", "rtsp://me:***@camera:554/1"),
        ("rtsp://me:s@cr@et@camera/1", "rtsp://me:***@camera/1"),
        ("rtsp://:secret@camera/1", "rtsp://:***@camera/1"),
        ("rtsp://me@camera/1", "rtsp://me@camera/1"),
        ("http://camera/v?user=me&pwd=secret&x=1", "http://camera/v?user=me&pwd=***&x=1"),
        ("http://camera/v?access_token=secret#a", "http://camera/v?access_token=***#a"),
        ("error: 'http://me:secret@a/' and rtsp://b", "error: 'http://me:***@a/' and rtsp://b"),
        ("/data/a.mp4", "/data/a.mp4"),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_user_and_password_are_taken_out_and_decoded() -> None:
    assert credentials("http://me:p%40s%3A@camera:81/v?a=1") == ("http://camera:81/v?a=1", ("me", "p@s:"))
    assert credentials("http://camera/v") == ("http://camera/v", None)


def test_waits_double_from_one_second_to_thirty_and_begin_anew() -> None:
    backoff = Backoff()
    waits = [backoff.next_s() for _ in range(12)]
    for wait, least, most in zip(waits, [1, 2, 4, 8, 15, 15], [2, 4, 8, 16, 30, 30], strict=False):
        assert least <= wait <= most
    assert all(15 <= wait <= 30 for wait in waits[5:])
    assert len(set(waits[5:])) > 1
    backoff.reset()
    assert 1 <= backoff.next_s() <= 2
    assert 15 <= backoff.slow_s() <= 30


def play(late: Late, clocks: list[float], behind: list[float]) -> list[int]:
    """Which packets are left out; a key frame every 25."""
    return [
        i
        for i, (clock, by) in enumerate(zip(clocks, behind, strict=True))
        if late.skips(clock, i % 25 == 0, clock + by)
    ]


def test_a_decoder_that_falls_behind_leaves_out_to_the_next_key_frame() -> None:
    clocks = [i / 25 for i in range(500)]
    on_time = [0.05] * 500
    assert play(Late(), clocks, on_time) == []
    # From frame 100 on packets wait for longer and longer; from 160 on they are read from the buffer at once.
    behind = [0.05] * 100 + [0.05 + i * 0.025 for i in range(60)] + [max(0.05, 1.5 - i * 0.04) for i in range(340)]
    left_out = play(Late(), clocks, behind)
    assert left_out
    assert left_out == list(range(left_out[0], left_out[-1] + 1))
    assert left_out[-1] % 25 == 24


def test_a_camera_whose_clock_goes_back_or_drifts_is_not_late_for_ever() -> None:
    back = [i / 25 for i in range(200)] + [i / 25 - 60 for i in range(200, 600)]
    late = Late()
    left_out = [i for i, clock in enumerate(back) if late.skips(clock, i % 25 == 0, i / 25)]
    assert 0 < len(left_out) < 100
    slow = Late()
    assert not any(slow.skips(i / 25 * 0.9995, i % 25 == 0, i / 25) for i in range(25 * 3600 * 3))


def test_a_frame_says_who_it_is_and_never_raises() -> None:
    class Broken:
        def pixels(self) -> np.ndarray:
            raise ValueError("no such format")

    frame = Frame("camera", 7, Broken(), 1_700_000_000.1234, 0.0, 0.28)
    assert isinstance(frame.load(), JobError)
    assert frame.title == "camera/000000007"
    assert frame.info(["dark"]).captured == "2023-11-14T22:13:20.123Z"
    assert frame.info().position_s == 0.28
    assert utc(0.0) == "1970-01-01T00:00:00.000Z"
