"""How far a stream has come: what is told, what is remembered, where a video is taken up again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from buoy.serve.live.bookmark import Bookmark, digest
from buoy.serve.live.clock import now
from buoy.serve.live.history import History
from buoy.serve.live.registry import Registry
from buoy.serve.metrics import Metrics
from buoy.streams.account import Account
from buoy.streams.frame import Frame
from buoy.streams.progress import FILE_BYTES, Past, Progress, Spot, file_key, file_version, files_of
from buoy.streams.slot import Slot
from buoy.streams.sources.place import Place
from buoy.streams.spec import StreamSpec, read_spec
from support.frames import frame as record_of
from support.loop import run

#: Times of pictures as decoders give them: most grow, some are absent (damaged pictures), some are said twice.
pts = st.lists(st.none() | st.integers(0, 12), min_size=1, max_size=12) | st.lists(
    st.integers(0, 99), min_size=1, max_size=12, unique=True
).map(lambda times: [*sorted(times)])


def file(name: str, changed_ns: int = 1) -> bytes:
    return file_key(name.encode()) + file_version(changed_ns, 10)


def frame_of(number: int, mark: bytes | Spot | None, captured_s: float = 0.0) -> Frame:
    return Frame("reef", number, b"", captured_s, 0.0, mark=mark)


def spot_of(place: Place) -> Spot:
    return Spot(number=place.number, pts=place.pts, size_bytes=1, changed_ns=1)


def given_of(place: Place, times: list[Any], first: int = 0) -> list[tuple[int, Spot]]:
    """Those that are new, by where they really are, with their marks."""
    return [(first + at, spot_of(place)) for at, time in enumerate(times) if place.is_new(time)]


@given(pts, st.data())
def test_a_video_is_taken_up_after_any_picture(times: list[int | None], data: st.DataObject) -> None:
    whole = given_of(Place(None), times)
    assert [at for at, _ in whole] == [spot.number for _, spot in whole] == list(range(len(times)))
    stopped, past = data.draw(st.sampled_from(whole))
    counted = given_of(Place(past), times)
    assert counted == whole[stopped + 1 :]
    if past.pts is not None:
        begin = data.draw(st.integers(0, stopped))
        sought = given_of(Place(past, sought=True), times[begin:], begin)
        assert sought == whole[stopped + 1 :]


def test_a_frame_tells_where_it_is_and_what_was_passed_before_it() -> None:
    progress = Progress()
    assert progress.news() == {}
    progress.passed(frame_of(0, file("a")))
    progress.passed(frame_of(1, None))
    told = progress.news(frame_of(2, file("b"), 5.0))
    assert told == {"past": {"number": 2, "clock_s": 5.0}, "passed": (file("a") + file("b")).hex()}
    assert progress.news() == {}
    spot = Spot(number=3, pts=900, size_bytes=1, changed_ns=2)
    assert progress.news(frame_of(3, spot)) == {
        "past": {"number": 3, "clock_s": 0.0, "spot": {"number": 3, "pts": 900, "size_bytes": 1, "changed_ns": 2}}
    }


def test_a_file_that_is_gone_is_told_after_the_frames_before_it() -> None:
    """Else it would be remembered for good: its own frame may still be looked at."""
    account = Account()
    progress = Progress(settled=account.settled)
    account.received()
    progress.gone(file("a"))
    assert progress.news() == {}
    account.processed()
    assert progress.news(frame_of(0, file("a"))) == {
        "past": {"number": 0, "clock_s": 0.0}, "passed": file("a").hex(), "gone": file("a").hex()
    }  # fmt: skip


def test_the_files_of_before_are_handed_over_once() -> None:
    progress = Progress(files=file("a") + file("b"))
    assert progress.take_files() == dict(files_of(file("a") + file("b")))
    assert progress.take_files() == {}
    assert len(file("a")) == FILE_BYTES


def test_a_bookmark_gives_back_what_it_was_told() -> None:
    bookmark = Bookmark()
    assert bookmark.opening() == ({}, b"")
    assert bookmark.save(StreamSpec(name="reef", source="push:")) is None
    bookmark.reach({"passed": file("a").hex(), "past": {"number": 0, "clock_s": 1.0}})
    bookmark.reach({"event": "counts"})
    bookmark.reach({"passed": file("b").hex()})
    assert bookmark.opening() == ({"past": {"number": 0, "clock_s": 1.0}}, file("a") + file("b"))
    bookmark.reach({"passed": file("a", 2).hex(), "gone": (file("a", 1) + file("b")).hex()})
    assert bookmark.opening()[1] == file("a", 2)  # another file has come under the name of one that is gone
    spec = StreamSpec(name="reef", source="pictures")
    assert Bookmark(bookmark.save(spec)).opening() == bookmark.opening()


def test_only_the_end_of_a_video_is_remembered() -> None:
    bookmark = Bookmark()
    bookmark.reach({"passed": file("a").hex(), "past": {"number": 0, "clock_s": 1.0}})
    assert not bookmark.end()
    bookmark.reach({"past": {"number": 0, "spot": {"number": 0, "size_bytes": 1, "changed_ns": 1}}})
    assert bookmark.end()


def test_a_default_that_is_written_out_is_no_other_configuration() -> None:
    sink = {"kind": "webhook", "to": "https://h.example/secret"}
    spec = {"name": "reef", "source": "dive.mp4", "track": {}, "sinks": [sink]}
    same = {**spec, "track": {"high": 0.25}, "sinks": [{**sink, "k": 3}], "every_s": 0, "station": ""}
    assert digest(read_spec(spec)) == digest(read_spec(same))
    plain = StreamSpec(name="reef", source="x")
    assert digest(plain) == hashlib.sha256(b'{"name":"reef","source":"x"}').hexdigest()  # of any version of ours
    others = [{"source": "other.mp4"}, {"station": "pier"}, {"track": {"high": 0.3}}, {"sinks": [{**sink, "k": 2}]}]
    assert len({digest(read_spec({**spec, **other})) for other in [{}, *others]}) == 1 + len(others)


def history_of(path: Path, station: str, head: dict[str, Any]) -> History:
    """One that has seen a frame."""
    history = History(StreamSpec(name="reef", source="x", station=station), path)
    history.bookmark.reach(head)
    history.see(record_of(0, now()), {})
    history.write(history.document())
    return history


def effort(history: History) -> int:
    history.name(["fish"])
    return sum(row["frames"] for row in history.series.rows(60) if row["taxon"] == "fish")


def test_what_is_looked_at_again_does_not_count_with_what_was_seen_before(tmp_path: Path) -> None:
    path = tmp_path / "reef.json"
    history_of(path, "", {"passed": file("a").hex()})
    assert effort(History(StreamSpec(name="reef", source="x"), path)) == 1
    otherwise = History(StreamSpec(name="reef", source="x", station="pier"), path)
    assert (effort(otherwise), otherwise.bookmark.opening(), otherwise.gaps) == (0, ({}, b""), [])
    assert (tmp_path / "reef.json.before").exists()
    otherwise.forget()
    assert not list(tmp_path.iterdir())


def test_a_camera_that_is_configured_otherwise_keeps_its_history(tmp_path: Path) -> None:
    history_of(tmp_path / "reef.json", "", {})
    again = History(StreamSpec(name="reef", source="x", station="pier"), tmp_path / "reef.json")
    assert effort(again) == 1


def test_what_comes_after_the_sinks_were_closed_is_left_to_the_next_opening(tmp_path: Path) -> None:
    looker: Any = SimpleNamespace(name="tiny", about={}, ready=False)
    registry = Registry([looker], Metrics(), tmp_path, [StreamSpec(name="reef", source="x")])
    (stream,) = registry
    head = {"stream": "reef", "event": "frame", "lag_ms": 1.0, "jpeg_bytes": 0}
    registry.event({**head, "passed": file("a").hex()}, record_of(0, now()))
    stream.end()
    registry.event({**head, "passed": file("b").hex()}, record_of(1, now()))
    assert (effort(stream.history), stream.history.bookmark.opening()) == (1, ({}, file("a")))


def test_nothing_is_opened_in_a_process_that_comes_while_the_service_ends(tmp_path: Path) -> None:
    told = list[dict[str, Any]]()
    about = {"model": {"labels": []}}
    looker: Any = SimpleNamespace(name="tiny", about=about, ready=True, tell=lambda head, body=b"": told.append(head))

    async def end() -> None:
        registry = Registry([looker], Metrics(), tmp_path, [StreamSpec(name="reef", source="x")])
        registry.worker_ready(looker)
        looker.ready = False  # it does not answer any more
        await registry.close()
        registry.worker_ready(looker)

    run(end())
    assert [head["op"] for head in told] == ["open", "shut"]


def test_a_stream_that_is_forgotten_is_not_saved_any_more(tmp_path: Path) -> None:
    history = History(StreamSpec(name="reef", source="x"), tmp_path / "reef.json")
    document = history.document()
    history.forget()
    history.write(document)
    assert not list(tmp_path.iterdir())


def test_sampling_goes_on_from_the_latest_frame() -> None:
    account, passed = Account(), list[Frame]()
    slot = Slot("file", account, every_s=10.0, since_s=100.0, passed=passed.append)
    for at, captured_s in enumerate((101.0, 105.0, 109.0, 110.0)):
        slot.put(frame_of(at, file(str(at)), captured_s))
    assert [frame.number for frame in passed] == [0, 1, 2]
    assert (found := slot.take()) is not None
    assert found.number == 3


def test_a_newer_frame_passes_the_one_that_waits() -> None:
    passed = list[Frame]()
    slot = Slot("live", Account(), passed=passed.append)
    for at in range(3):
        slot.put(frame_of(at, None))
    slot.close()
    assert [frame.number for frame in passed] == [0, 1]


def test_an_opening_without_a_past_counts_from_nought() -> None:
    assert Past().number == -1
