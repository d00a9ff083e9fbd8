"""Counts by label and minute: effort beside every value, and no frame is not zero fish."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from buoy.errors import UsageError
from buoy.streams.series import Series
from buoy.streams.spec import StreamSpec, read_spec

#: 2026-01-31, noon.
NOON_S = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())


def utc(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(moment_s: float, *labels: str, flags: tuple[str, ...] = (), **more: Any) -> bytes:
    taxa = {"crab": {"taxon": {"aphia_id": 106673}}}
    found = [{"label": each, "class_id": 0, "score": 0.9, "box": [0, 0, 1, 1], **taxa.get(each, {})} for each in labels]
    frame = {"stream": "camera", "number": 0, "captured": utc(moment_s), "flags": list(flags)}
    return json.dumps(
        {
            "schema": "buoy.result/1",
            "input": {"name": "camera/0", "size_bytes": 1, "sha256": "0" * 64, "frame": frame},
            "model": {"name": "fish", "version": "1.0", "weights_sha256": "ab", "maturity": "demo"},
            "parameters": {"score": 0.25, "iou": 0.45},
            "detections": found,
            **more,
        }
    ).encode()


def spec(**more: Any) -> StreamSpec:
    return read_spec({"name": "camera", "source": "push:", "station": "obsea", "camera": "south", **more})


def series(**more: Any) -> Series:
    return Series(spec(**more), ["fish"])


def counted(*counts: int, flagged: int | None = None) -> Series:
    """A minute whose frames, a second apart, have so many fish; the frame `flagged` is blurred."""
    made = series()
    for at, count in enumerate(counts):
        made.frame(record(NOON_S + at, *["fish"] * count, flags=("blurred",) if at == flagged else ()))
    return made


def test_maxn_mean_and_effort_of_a_minute() -> None:
    (row,) = counted(0, 2, 3, 1, 0, 4).rows()
    assert (row["maxn"], row["mean_count"], row["frames"], row["n"], row["presence"]) == (
        4, pytest.approx(1.667, abs=5e-4), 6, 10, 1,
    )  # fmt: skip
    assert (row["time_utc"], row["station"], row["camera"], row["taxon"]) == (
        "2026-01-31T12:00:00Z", "obsea", "south", "fish",
    )  # fmt: skip
    assert (row["seconds_observed"], row["gap_seconds"], row["flags"], row["conf_threshold"]) == (5.0, 0.0, "", 0.25)
    assert (row["model"], row["model_sha256"]) == ("fish 1.0", "ab")


def test_a_flagged_frame_is_no_effort_and_sets_no_maximum() -> None:
    (row,) = counted(0, 2, 3, 1, 0, 4, flagged=5).rows()
    assert (row["frames"], row["maxn"], row["frames_flagged"], row["flags"]) == (5, 3, 1, "blurred")
    assert row["seconds_observed"] == 4.0


def test_the_time_beside_a_flagged_frame_is_not_observed() -> None:
    (row,) = counted(1, 1, 1, 1, flagged=1).rows()
    assert (row["frames"], row["seconds_observed"]) == (3, 1.0)


def test_a_window_of_flagged_frames_alone_is_missing() -> None:
    (row,) = counted(4, flagged=0).rows()
    assert (row["frames"], row["maxn"], row["mean_count"], row["presence"], row["n"]) == (0, None, None, None, None)


def test_a_window_without_frames_is_missing_and_not_zero() -> None:
    made = series()
    made.frame(record(NOON_S, "fish"))
    made.frame(record(NOON_S + 120))
    first, second, third = made.rows()
    assert (first["maxn"], second["maxn"], third["maxn"]) == (1, None, 0)
    assert (second["frames"], second["flags"]) == (0, "gap")


def test_an_outage_is_rows_with_its_seconds() -> None:
    made = series()
    made.frame(record(NOON_S + 29))
    made.frame(record(NOON_S + 30))
    made.gap(utc(NOON_S + 30), None, "no connection")
    made.gap(utc(NOON_S + 30), utc(NOON_S + 150), "no connection")
    made.frame(record(NOON_S + 150))
    rows = made.rows()
    assert [row["gap_seconds"] for row in rows] == [30.0, 60.0, 30.0]
    assert [row["maxn"] for row in rows] == [0, None, 0]
    assert [row["flags"] for row in rows] == ["gap"] * 3
    assert sum(row["seconds_observed"] for row in rows) == 1.0
    assert made.gaps == [{"begin": utc(NOON_S + 30), "end": utc(NOON_S + 150), "reason": "no connection"}]


def test_an_outage_that_goes_on_has_rows_up_to_now() -> None:
    made = series()
    now_s = datetime.now(UTC).timestamp()
    made.gap(utc(now_s - 600), None, "no connection")
    rows = made.rows()
    assert 10 <= len(rows) <= 12
    assert sum(row["gap_seconds"] for row in rows) == pytest.approx(600, abs=60)


def test_outages_that_overlap_count_once() -> None:
    made = series()
    made.gap(utc(NOON_S), utc(NOON_S + 40), "one")
    made.gap(utc(NOON_S + 20), utc(NOON_S + 50), "two")
    assert [row["gap_seconds"] for row in made.rows()] == [50.0]


def test_longer_windows_add_up() -> None:
    made = series()
    for minute, count in enumerate((1, 0, 3)):
        made.frame(record(NOON_S + 60 * minute, *["fish"] * count))
    made.frame(record(NOON_S + 16 * 60, "fish", "fish"))
    quarter, second = made.rows(15)
    assert (quarter["maxn"], quarter["frames"], quarter["n"], quarter["window_s"]) == (3, 3, 4, 900)
    assert (second["time_utc"], second["maxn"]) == ("2026-01-31T12:15:00Z", 2)
    (hour,) = made.rows(60)
    assert (hour["maxn"], hour["frames"], hour["mean_count"]) == (3, 4, 1.5)
    with pytest.raises(UsageError, match="7 minutes"):
        made.rows(7)


def test_rows_since_a_time() -> None:
    made = series()
    for minute in range(5):
        made.frame(record(NOON_S + 60 * minute))
    assert [row["time_utc"][11:16] for row in made.rows(1, "2026-01-31T12:03:20Z")] == ["12:03", "12:04"]
    assert made.rows(1, "2027-01-01T00:00:00Z") == []
    with pytest.raises(UsageError, match="yesterday"):
        made.rows(1, "yesterday")


def test_labels_and_taxa_are_learnt_from_records() -> None:
    made = Series(spec(), {"fish": 125802, "jelly": None})
    made.frame(record(NOON_S, "crab"))
    assert {row["taxon"]: (row["maxn"], row["aphia_id"]) for row in made.rows()} == {
        "fish": (0, 125802), "jelly": (0, None), "crab": (1, 106673),
    }  # fmt: skip


def test_lines_and_regions_have_columns_of_their_own() -> None:
    made = series(
        track=True,
        lines=[{"name": "gate", "start": [0, 0], "end": [1, 1]}],
        regions=[{"name": "reef", "points": [[0, 0], [1, 0], [1, 1]]}],
    )
    event = {"line": "gate", "direction": "in", "track_id": 1, "label": "fish"}
    regions = {"reef": {"now": {"fish": 2}, "maxn": {"fish": 2}}}
    made.frame(record(NOON_S, "fish", "fish", "fish"), {"events": [event], "lines": {}, "regions": regions})
    made.frame(record(NOON_S + 60, "fish"), {"events": [event, event], "lines": {}, "regions": {"reef": {"now": {}}}})
    made.frame(record(NOON_S + 90, "fish", flags=("dark",)), {"events": [], "regions": {"reef": {"now": {"fish": 9}}}})
    assert [(row["line_gate_in"], row["line_gate_out"], row["region_reef_maxn"]) for row in made.rows()] == [
        (1, 0, 2), (2, 0, 0),
    ]  # fmt: skip
    (row,) = made.rows(15)
    assert (row["line_gate_in"], row["region_reef_maxn"], row["maxn"]) == (3, 2, 3)
    assert list(row) == made.columns()


def test_a_picture_that_could_not_be_read_is_no_effort() -> None:
    made = series()
    made.frame(record(NOON_S, "fish"))
    made.frame(record(NOON_S + 1, error={"class": "InputError", "message": "truncated", "hint": ""}))
    (row,) = made.rows()
    assert (row["frames"], row["frames_flagged"], row["flags"]) == (1, 1, "unreadable")


def test_another_model_within_a_window_is_named() -> None:
    made = series()
    made.frame(record(NOON_S))
    newer = {"name": "fish", "version": "2.0", "weights_sha256": "cd", "maturity": "demo"}
    made.frame(record(NOON_S + 1, model=newer))
    (row,) = made.rows()
    assert (row["model"], row["model_sha256"]) == ("fish 1.0 fish 2.0", "ab cd")


def test_memory_is_bounded_and_old_windows_go_to_the_writer() -> None:
    written: list[dict[str, Any]] = []
    made = Series(spec(), ["fish"], keep_minutes=3, old=written.extend)
    for minute in range(10):
        made.frame(record(NOON_S + 60 * minute, *["fish"] * minute))
    assert [row["maxn"] for row in written] == list(range(7))
    assert [row["maxn"] for row in made.rows()] == [7, 8, 9]
    made.frame(record(NOON_S, "fish"))
    assert made.late == 1
    assert [row["maxn"] for row in made.rows()] == [7, 8, 9]


def test_it_goes_on_after_a_restart() -> None:
    whole, first = series(), series()
    for at in range(0, 200, 7):
        for each in (whole, first) if at < 100 else (whole,):
            each.frame(record(NOON_S + at, *["crab"] * (at % 3), flags=("dark",) if at % 5 == 0 else ()))
    second = series()
    second.load(first.save())
    for at in range(105, 200, 7):
        second.frame(record(NOON_S + at, *["crab"] * (at % 3), flags=("dark",) if at % 5 == 0 else ()))
    for each in (whole, second):
        each.gap(utc(NOON_S + 300), utc(NOON_S + 310), "away")
    assert second.rows() == whole.rows()
    assert second.gaps == whole.gaps
    with pytest.raises(UsageError, match="no saved series"):
        series().load(b"[]")


@given(
    st.lists(
        st.tuples(st.integers(0, 1200), st.integers(0, 5), st.sampled_from([(), (), ("dark",), ("frozen", "dark")])),
        max_size=40,
    )
)
@example([(451, 0, ()), (511, 0, ()), (450, 0, ()), (510, 0, ())])  # a clock that is set back
def test_windows_say_what_a_plain_count_says(frames: list[tuple[int, int, tuple[str, ...]]]) -> None:
    made = series()
    for at, count, flags in frames:  # in any order of time
        made.frame(record(NOON_S + at, *["fish"] * count, flags=flags))
    for minutes in (1, 15, 60):
        for row in made.rows(minutes):
            begin = datetime.fromisoformat(row["time_utc"]).timestamp() - NOON_S
            within = [each for each in frames if begin <= each[0] < begin + minutes * 60]
            good = [count for _, count, flags in within if not flags]
            assert row["frames"] == len(good)
            assert row["frames_flagged"] == len(within) - len(good)
            assert row["maxn"] == (max(good) if good else None)
            assert row["n"] == (sum(good) if good else None)
            assert 0 <= row["seconds_observed"] <= minutes * 60
