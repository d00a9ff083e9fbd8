"""Tracks: the same animal keeps its number, whatever the frame rate."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec import UNSET

from buoy.results import Detection
from buoy.streams.spec import Tracking

pytest.importorskip("trackers")

from buoy.streams.track import Tracker

Spot = tuple[float, float]


def animal(spot: Spot, score: float = 0.9, label: str = "fish") -> Detection:
    x, y = spot
    return Detection(label=label, class_id=0, score=score, box=(x, y, x + 40, y + 40))


def follow(frames: Iterable[list[Detection]], rate: float = 25.0, tracking: Tracking | None = None) -> list[list[int]]:
    """The numbers in each frame; 0 for none."""
    tracker = Tracker(tracking or Tracking())
    found = [tracker.update(frame, at / rate) for at, frame in enumerate(frames)]
    return [[0 if each.track_id is UNSET else each.track_id for each in frame] for frame in found]


def test_animals_that_pass_each_other_keep_their_numbers() -> None:
    frames = [[animal((4 * at, 100)), animal((400 - 4 * at, 160))] for at in range(100)]
    numbers = follow(frames)
    assert numbers[0] == [0, 0]
    assert all(frame == [1, 2] for frame in numbers[1:])


def test_detections_stay_in_their_order_and_are_otherwise_the_same() -> None:
    tracker = Tracker(Tracking())
    frame = [animal((0, 0), 0.2), animal((200, 0), 0.05), animal((400, 0), 0.9, "crab")]
    for at in range(3):
        found = tracker.update(frame, at / 25)
    assert [each.box for each in found] == [each.box for each in frame]
    assert [each.track_id for each in found] == [UNSET, UNSET, 1]


def test_an_animal_that_turns_faint_or_is_mistaken_keeps_its_number() -> None:
    frames = [
        [animal((4 * at, 0), 0.15 if at % 3 == 2 else 0.8, "crab" if at % 4 == 3 else "fish")] for at in range(30)
    ]
    assert all(frame == [1] for frame in follow(frames)[1:])


@pytest.mark.parametrize("rate", [5.0, 10.0, 25.0])
def test_a_lost_animal_is_remembered_for_seconds_and_not_frames(rate: float) -> None:
    def gone_for(seconds: float) -> list[list[int]]:
        frames = [[animal((100, 100))]] * 20
        return follow(frames + [[]] * round(seconds * rate) + frames, rate, Tracking(lost_s=2.0))

    assert gone_for(1.6)[-1] == [1]
    assert gone_for(2.4)[-1] == [2]


def test_a_track_outlives_a_frame_without_it_however_slow_frames_are() -> None:
    frames = [[animal((100, 100))]] * 6 + [[]] + [[animal((100, 100))]] * 3
    assert follow(frames, rate=0.2)[-1] == [1]


def test_an_outage_ends_tracks() -> None:
    tracker = Tracker(Tracking())
    for at in range(10):
        found = tracker.update([animal((0, 0))], at / 25)
    assert found[0].track_id == 1
    for at in range(3):
        found = tracker.update([animal((0, 0))], 60 + at / 25)
    assert found[0].track_id == 2


def test_clocks_that_stand_still_or_go_back_change_nothing() -> None:
    tracker = Tracker(Tracking())
    for clock_s in (10.0, 10.0, 10.04, 3.0, 3.04, 3.04):
        found = tracker.update([animal((0, 0))], clock_s)
    assert found[0].track_id == 1


def test_empty_frames_are_frames() -> None:
    assert follow([[], [], [animal((0, 0))], [], [animal((0, 0))], [animal((0, 0))]])[-1] == [1]


def test_an_animal_keeps_its_number_when_the_camera_changes_its_resolution() -> None:
    tracker = Tracker(Tracking())
    numbers = []
    for at in range(12):
        scale = 1 if at < 6 else 3
        fish = Detection(label="fish", class_id=0, score=0.9, box=tuple(scale * each for each in (40, 20, 60, 50)))
        (found,) = tracker.update([fish], at / 25, (100 * scale, 200 * scale))
        assert found.box == fish.box
        numbers.append(found.track_id)
    assert numbers[1:] == [1] * 11
