"""The parts of live streams on the service's side: counts, gaps, masks, what is kept, viewers that hang."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.errors import BusyError, StoreError, UsageError
from buoy.serve.connection import ABORT
from buoy.serve.live import viewing
from buoy.serve.live.clock import now
from buoy.serve.live.history import History
from buoy.serve.live.kept import Kept, read_file, write_whole
from buoy.serve.live.masking import masked, without
from buoy.serve.live.totals import LOST, Totals
from buoy.serve.live.viewing import Viewers, Viewing
from buoy.streams.spec import StreamSpec, read_spec
from support.frames import frame
from support.loop import run

SPEC = StreamSpec(name="reef", source="push:")


def counts(processed: int, newer: int, in_flight: int) -> dict[str, Any]:
    received = processed + newer + in_flight
    dropped = {"newer": newer} if newer else {}
    return {"received": received, "processed": processed, "dropped": dropped, "in_flight": in_flight, "reconnects": 1}


@given(st.lists(st.tuples(*[st.integers(0, 1000)] * 3), min_size=1, max_size=5))
def test_counts_balance_over_any_number_of_openings(openings: list[tuple[int, int, int]]) -> None:
    totals = Totals()
    for processed, newer, in_flight in openings:
        totals.reach(counts(processed, newer, in_flight))
        found = totals.now()
        assert found["received"] == found["processed"] + sum(found["dropped"].values()) + found["in_flight"]
        totals.close()
    found = totals.now()
    assert found["received"] == sum(map(sum, openings))
    assert found["dropped"].get(LOST, 0) == sum(in_flight for _, _, in_flight in openings)
    assert (found["in_flight"], found["reconnects"]) == (0, len(openings))


def test_a_gap_begins_once_and_is_told_when_it_is_over() -> None:
    history = History(SPEC, None)
    assert history.begin("silence", "2026-01-31T12:00:00.000Z") is not None
    assert history.begin("still silence", "2026-01-31T12:00:05.000Z") is None
    assert [gap.end for gap in history.gaps] == [None]
    over = history.end("2026-01-31T12:01:00.000Z")
    assert over is not None
    assert (over.begin, over.end, over.reason) == ("2026-01-31T12:00:00.000Z", "2026-01-31T12:01:00.000Z", "silence")
    assert history.end("2026-01-31T12:02:00.000Z") is None
    assert history.series.gaps == [{"begin": over.begin, "end": over.end, "reason": "silence"}]


def test_what_was_seen_is_there_after_a_restart_and_the_time_between_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "history" / "reef.json"
    history = History(SPEC, path)
    history.name(["fish"])
    history.see(frame(0, now()), {})
    history.begin("silence", now())
    history.end(now())
    history.write(history.document())
    again = History(SPEC, path)
    assert [gap.reason for gap in again.gaps] == ["silence", "the service was not running"]
    assert again.gaps[-1].end is None
    assert sum(row["frames"] for row in again.series.rows(60) if row["taxon"] == "fish") == 1
    again.forget()
    assert not path.exists()


def test_a_history_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "reef.json"
    path.write_bytes(b'{"saved": "2026')
    assert History(SPEC, path).gaps == []
    assert (tmp_path / "reef.json.unreadable").exists()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://u:p%40ss@h/cam", "rtsp://u:***@h/cam"),
        ("rtsp://u@h/cam", "rtsp://u@h/cam"),
        (
            "http://h/mjpg?user=x&password=abc&auth_key=1&res=hd",
            "http://h/mjpg?user=x&password=***&auth_key=***&res=hd",
        ),
        ("/videos/a:b@c.mp4", "/videos/a:b@c.mp4"),
        ("push:", "push:"),
    ],
)
def test_passwords_are_masked_and_the_rest_is_shown(source: str, shown: str) -> None:
    assert masked(StreamSpec(name="x", source=source))["source"] == shown


def test_what_a_library_says_is_masked_too() -> None:
    spec = StreamSpec(name="x", source="rtsp://guest:hunter2@h/cam?token=abcdef")
    assert without(spec, "no rtsp://guest:hunter2@h/cam?token=abcdef") == "no rtsp://guest:***@h/cam?token=***"


def test_a_webhooks_path_is_not_shown() -> None:
    spec = read_spec(
        {"name": "x", "source": "push:", "sinks": [{"kind": "webhook", "to": "https://h.example/T0/B1?x=1"}]}
    )
    assert masked(spec)["sinks"][0]["to"] == "https://h.example/***"


def test_streams_are_kept_for_their_owner_alone_and_whole(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "data")
    kept.save([(SPEC, False), (StreamSpec(name="done", source="a.mp4"), True)])
    assert Kept(tmp_path / "data").load() == [(SPEC, False), (StreamSpec(name="done", source="a.mp4"), True)]
    assert stat.S_IMODE((tmp_path / "data" / "streams.json").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["streams.json"]
    (tmp_path / "data" / "streams.json").write_text("{")
    with pytest.raises(UsageError, match="mend the file"):
        Kept(tmp_path / "data").load()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_whole(tmp_path / "file" / "x", b"data")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1", "no list"),
        ("- name: x", "stream 1"),
        ("- {name: x, source: 'push:'}\n- {name: y, source: 'push:', colour: red}", "stream 2"),
        ("- {name: x, source: 'push:'}\n- {name: x, source: 'push:'}", "two streams are called x"),
        ("- [", "streams.yaml"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "streams.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_file(path)


def test_a_viewer_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "PATIENCE_S", 0.05)
    cut: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"piece"

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def watch() -> None:
        viewers = Viewers()
        scope = {"type": "http", "method": "GET", "buoy.account": SimpleNamespace(), ABORT: lambda: cut.append("cut")}
        await Viewing(pieces(), "text/plain", viewers)(scope, receive, send)  # type: ignore[arg-type]
        assert viewers.number == 0

    run(watch())
    assert cut == ["cut"]


def test_only_so_many_may_watch_at_once() -> None:
    viewers = Viewers()
    viewers.most = 1
    with viewers.one({}), pytest.raises(BusyError), viewers.one({}):
        pass
    with viewers.one({}):
        assert viewers.number == 1


def test_viewers_that_do_not_leave_are_cut_off_at_the_end() -> None:
    cut: list[str] = []

    async def end() -> None:
        viewers = Viewers()
        with viewers.one({ABORT: lambda: cut.append("cut")}):
            await viewers.end(0.05)

    run(end())
    assert cut == ["cut"]
