"""Folders that grow as sources of streams."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buoy.errors import InputError
from buoy.streams.frame import Frame
from buoy.streams.progress import Past, Progress
from support.mjpeg import stamped_jpeg
from support.reading import nothing_left_behind, reading, stamped, until
from support.rtsp import moving_bar

BAR = moving_bar(5)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left_behind():
        yield


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
