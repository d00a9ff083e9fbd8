"""The host of streams: real videos and pushed pictures through a real engine, and all that it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from buoy.results import Failure
from support.hosted import Said, hosted, moving, write_video
from support.tiny import picture_with_squares, png

pytest.importorskip("av")


def boxes(said: Said) -> list[tuple[float, ...]]:
    return [found.box for found in said.result.detections or []]


def numbers(frames: list[Said]) -> list[int]:
    return [said.result.input.frame.number for said in frames]  # type: ignore[union-attr]


def test_every_frame_of_a_video_is_looked_at_in_its_order(tmp_path: Path) -> None:
    video = write_video(tmp_path / "dive.mp4", 60)
    with hosted(tmp_path) as streams:
        streams.open("dive", video)
        counts = streams.ended("dive")
        frames = streams.of("dive", "frame")
    assert counts == {"received": 60, "processed": 60, "dropped": {}, "in_flight": 0, "reconnects": 0}
    assert numbers(frames) == list(range(60))
    for at, said in enumerate(frames):
        row, column = at // 4 % 4, at % 4
        assert boxes(said) == [(column * 16, row * 16, column * 16 + 16, row * 16 + 16)]
        frame = said.result.input.frame
        assert frame
        assert frame.position_s == pytest.approx(at / 25, abs=1e-3)
        assert (said.jpeg, said.head["jpeg_bytes"], said.head["crossings"]) == (b"", 0, {})
        assert said.head["lag_ms"] >= 0
    states = [said.head["state"] for said in streams.of("dive", "state")]
    assert states == ["connecting", "live", "ended"]


def test_pushed_pictures_are_looked_at_and_shutting_ends_the_stream(tmp_path: Path) -> None:
    with hosted(tmp_path) as streams:
        streams.open("phone", "push:")
        streams.wait("phone", "state", "connecting")
        for at in range(5):
            streams.push("phone", png(picture_with_squares((0, at % 4))), captured=f"2026-01-31T12:00:0{at}.000Z")
            streams.wait("phone", "frame", count=at + 1)
        streams.tell("shut", "phone")
        counts = streams.ended("phone")
    assert (counts["received"], counts["processed"], counts["in_flight"]) == (5, 5, 0)
    captured = [said.result.input.frame.captured for said in streams.of("phone", "frame")]  # type: ignore[union-attr]
    assert captured == [f"2026-01-31T12:00:0{at}.000Z" for at in range(5)]


def test_a_damaged_picture_is_dropped_live_and_a_record_under_the_file_policy(tmp_path: Path) -> None:
    damaged = cv2.imencode(".jpg", picture_with_squares((1, 1)))[1].tobytes()[:-40]
    with hosted(tmp_path) as streams:
        for stream, policy in (("live", "live"), ("all", "file")):
            streams.open(stream, "push:", policy=policy)
            streams.wait(stream, "state", "connecting")
            streams.push(stream, damaged)
        streams.wait("all", "frame")
        for stream, count in (("live", 1), ("all", 2)):
            streams.wait(stream, "counts")
            streams.push(stream, png(picture_with_squares((0, 0))))
            streams.wait(stream, "frame", count=count)
            streams.tell("shut", stream)
        live, every = streams.ended("live"), streams.ended("all")
    assert (live["processed"], live["dropped"]) == (1, {"undecodable": 1})
    assert (every["processed"], every["dropped"]) == (2, {})
    failure = streams.of("all", "frame")[0].record
    assert isinstance(failure, Failure)
    assert "truncated" in failure.error.message


def test_pictures_are_drawn_while_somebody_watches(tmp_path: Path) -> None:
    picture = png(np.kron(picture_with_squares((1, 2)), np.ones((4, 4, 1), np.uint8)))  # 256 x 256
    with hosted(tmp_path) as streams:
        streams.open("phone", "push:")
        streams.wait("phone", "state", "connecting")
        widths = []
        for at, width in enumerate((0, 128, 1000, 0)):
            streams.tell("watch", "phone", width=width)
            streams.push("phone", picture)
            said = streams.wait("phone", "frame", count=at + 1)[at]
            shown = cv2.imdecode(np.frombuffer(said.jpeg, np.uint8), cv2.IMREAD_COLOR) if said.jpeg else None
            widths.append(None if shown is None else shown.shape[1])
            if width == 128:
                assert shown is not None
                # The box of the square: its frame is drawn in the class's colour, RGB 255 196 0.
                b, g, r = (int(value) for value in shown[48, 64])
                assert r > 200 and 120 < g < 240 and b < 130  # noqa: PT018
    assert widths == [None, 128, 256, None]


def test_no_more_pictures_are_drawn_than_a_screen_needs(tmp_path: Path) -> None:
    with hosted(tmp_path) as streams:
        streams.tell("watch", "dive", width=64)
        streams.open("dive", write_video(tmp_path / "dive.mp4", 100))
        streams.tell("watch", "dive", width=64)
        streams.ended("dive")
        frames = streams.of("dive", "frame")
    assert len(frames) == 100
    drawn = [at for at, said in enumerate(frames) if said.jpeg]
    assert 1 <= len(drawn) < 100


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"source": "gopher://sea/"}, "UsageError"),
        ({"source": "push:", "lines": [{"name": "gate", "start": [0, 0], "end": [1, 1]}]}, "UsageError"),
        ({"source": "push:", "every_s": "often"}, "UsageError"),
    ],
)
def test_a_stream_that_cannot_begin_says_why_and_the_others_go_on(
    tmp_path: Path, spec: dict[str, Any], error: str
) -> None:
    with hosted(tmp_path) as streams:
        streams.open("bad", **spec)
        streams.open("good", write_video(tmp_path / "dive.mp4", 8))
        (refused,) = streams.wait("bad", "state", "refused")
        assert refused.head["error"]["class"] == error
        assert refused.head["error"]["message"] in refused.head["reason"]
        assert streams.ended("good")["processed"] == 8
        assert not streams.of("bad", "state", "ended")
        streams.tell("shut", "bad")
        assert streams.ended("bad")["received"] == 0


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with hosted(tmp_path) as streams:
        streams.open("dive", tmp_path / "nothing.mp4")
        (refused,) = streams.wait("dive", "state", "refused")
        assert "nothing.mp4" in refused.head["reason"]
        streams.tell("shut", "dive")
        streams.ended("dive")


def test_a_crash_where_one_stream_is_told_leaves_the_others_going(tmp_path: Path) -> None:
    video = write_video(tmp_path / "dive.mp4", 30)
    with hosted(tmp_path, crash=lambda head: head["stream"] == "bad" and head["event"] == "frame") as streams:
        streams.open("bad", video)
        streams.open("good", video)
        assert streams.ended("good")["processed"] == 30
        assert streams.ended("bad")["received"] == 30
    assert len(streams.of("good", "frame")) == 30


def test_opening_again_replaces_a_stream(tmp_path: Path) -> None:
    with hosted(tmp_path) as streams:
        streams.open("phone", "push:")
        streams.wait("phone", "state", "connecting")
        streams.push("phone", png(picture_with_squares((0, 0))))
        streams.wait("phone", "frame")
        streams.open("phone", "push:")
        streams.wait("phone", "state", "connecting", count=2)
        assert not streams.of("phone", "state", "ended")
        streams.push("phone", png(picture_with_squares((0, 0))))
        assert streams.wait("phone", "frame", count=2)[1].head["counts"]["received"] == 1


def test_counts_are_said_when_nothing_else_is(tmp_path: Path) -> None:
    with hosted(tmp_path) as streams:
        streams.open("phone", "push:")
        said = streams.wait("phone", "counts", count=2)
    assert said[-1].head["counts"] == {"received": 0, "processed": 0, "dropped": {}, "in_flight": 0, "reconnects": 0}


def test_a_message_that_is_not_understood_ends_nothing(tmp_path: Path) -> None:
    with hosted(tmp_path) as streams:
        streams.host.take({"op": "open", "stream": "x"}, b"")
        streams.host.take({"op": "dance"}, b"")
        streams.tell("watch", "nobody", width=3)
        streams.tell("shut", "nobody")
        streams.push("nobody", b"")
        streams.open("dive", write_video(tmp_path / "dive.mp4", 3))
        assert streams.ended("dive")["processed"] == 3


def test_tracks_cross_a_line_and_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    video = write_video(tmp_path / "dive.mp4", 24, picture=moving)
    # Downwards from the top: to the right in the picture is the left-hand side of whoever walks down.
    gate = {"name": "gate", "start": [0.5, 0], "end": [0.5, 1]}
    reef = {"name": "reef", "points": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}
    with hosted(tmp_path, side=48) as streams:
        streams.open("dive", video, track=True, lines=[gate], regions=[reef])
        streams.ended("dive")
        frames = streams.of("dive", "frame")
    last = frames[-1].head["crossings"]
    assert last["lines"] == {"gate": {"in": {}, "out": {"bright": 1}}}
    events = [event for said in frames for event in said.head["crossings"]["events"]]
    assert events == [{"line": "gate", "direction": "out", "track_id": 1, "label": "bright"}]
    assert last["regions"]["reef"] == {"now": {"bright": 1}, "maxn": {"bright": 1}}
    assert frames[0].head["crossings"]["regions"]["reef"] == {"now": {}, "maxn": {}}
    ids = {found.track_id for said in frames[1:] for found in said.result.detections or []}
    assert ids == {1}
    assert frames[-1].result.parameters["score"] == 0.5
    assert frames[-1].result.parameters["track"]["low"] == 0.1


def test_a_stream_that_tracks_reports_from_the_same_score_on(tmp_path: Path) -> None:
    pytest.importorskip("trackers")

    def faint(number: int) -> Any:
        return moving(number) // 255 * (255 if number % 3 else 90)  # the score is the brightness

    video = write_video(tmp_path / "dive.mp4", 20, picture=faint)
    found: dict[bool, list[int]] = {}
    with hosted(tmp_path) as streams:
        for track in (False, True):
            streams.open(f"dive{int(track)}", video, track=track)
            streams.ended(f"dive{int(track)}")
            frames = streams.of(f"dive{int(track)}", "frame")
            found[track] = [len(said.result.detections or []) for said in frames]
    assert found[True] == found[False]
    assert set(found[True]) == {0, 1}


def test_tracking_without_its_library_names_the_extra(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['trackers'] = None\n"
        "from buoy.streams.track import Tracker; from buoy.streams.spec import Tracking\n"
        "from buoy.errors import UsageError\n"
        "try: Tracker(Tracking())\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "buoy[track]" in done.stdout


def test_streams_that_begin_at_once_do_not_end_the_process() -> None:
    """Each turn has types that have never been used, as a process has that has just begun."""
    script = (
        "import importlib, sys; from concurrent.futures import ThreadPoolExecutor; from buoy.streams import spec\n"
        "sys.setswitchinterval(1e-6); pool = ThreadPoolExecutor(8)\n"
        "for _ in range(100):\n"
        "    importlib.reload(spec)\n"
        "    list(pool.map(spec.read_spec, [{'name': 'reef', 'source': 'push:', 'track': True}] * 8))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_flags_stand_in_the_record(tmp_path: Path) -> None:
    dark, bright = png(picture_with_squares()), png(picture_with_squares((0, 0), (1, 1), (2, 2)))
    with hosted(tmp_path) as streams:
        streams.open("phone", "push:", dark_below=10)
        streams.wait("phone", "state", "connecting")
        for at, picture in enumerate((dark, bright)):
            streams.push("phone", picture)
            streams.wait("phone", "frame", count=at + 1)
        flags = [said.result.input.frame.flags for said in streams.of("phone", "frame")]  # type: ignore[union-attr]
    assert flags == [["dark"], []]


def test_closing_leaves_nothing_in_flight(tmp_path: Path) -> None:
    video = write_video(tmp_path / "dive.mp4", 500)
    with hosted(tmp_path) as streams:
        for each in ("a", "b", "c"):
            streams.open(each, video)
        for each in ("a", "b", "c"):
            streams.wait(each, "frame", count=3)
    for each in ("a", "b", "c"):
        counts = streams.ended(each)
        assert counts["in_flight"] == 0
        assert counts["received"] == counts["processed"] + sum(counts["dropped"].values())
