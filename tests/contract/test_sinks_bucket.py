"""Records in a bucket by the hour: a folder and a real MinIO, kills, outages, disks that are full."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from buoy.errors import UsageError
from buoy.serve.live.sinks import Limits, Sinks, spool
from buoy.serve.live.sinks.left import open_left
from buoy.store import open_store
from buoy.streams.spec import read_spec
from support.frames import failed_frame, frame
from support.minio import MinioServer, minio
from support.receiver import closed_port, hanging

HERE = Path(__file__).resolve().parents[1]
FISH = [("Diplodus vulgaris", 0.91), ("Chromis chromis", 0.5)]


class Place:
    """Where a sink writes, and how to read it back."""

    def __init__(self, to: str, fetch: Callable[[], dict[str, bytes]]) -> None:
        self.to = to
        self.fetch = fetch

    def rows(self) -> list[dict[str, Any]]:
        """Of all JSON lines, in the order of the files."""
        return [json.loads(line) for _, data in sorted(self.fetch().items()) for line in data.splitlines()]

    def numbers(self) -> list[int]:
        return [row["input"]["frame"]["number"] for row in self.rows() if "input" in row]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with minio(tmp_path_factory.mktemp("minio")) as running:
        yield running


@pytest.fixture(params=["folder", "minio"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield in_folder(tmp_path / "Out_put")  # no name for a bucket
        return
    with pytest.MonkeyPatch.context() as patch:
        yield in_minio(request.getfixturevalue("server"), f"b{time.time_ns()}", patch)


def in_folder(folder: Path) -> Place:
    def fetch() -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return Place(str(folder), fetch)


def in_minio(server: MinioServer, bucket: str, patch: pytest.MonkeyPatch) -> Place:
    for name, value in {
        "ENDPOINT": server.endpoint,
        "ACCESS_KEY": server.access_key,
        "SECRET_KEY": server.secret_key,
    }.items():
        patch.setenv(f"BUOY_S3_{name}", value)
    store = open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key)
    store.create_bucket(bucket)

    def fetch() -> dict[str, bytes]:
        return {each.key.removeprefix("live/"): store.get(bucket, each.key) for each in store.walk(bucket, "live/")}

    return Place(f"s3://{bucket}/live/", fetch)


def sinks(to: str, data: Path | None, limits: Limits | None = None, form: str = "jsonl") -> Sinks:
    sink = {"kind": "bucket", "to": to, "format": form}
    spec = {"name": "reef", "source": "push:", "station": "OBSEA", "camera": "east", "sinks": [sink]}
    return Sinks(read_spec(spec), data, limits)


def until(true: Callable[[], object], what: str = "it") -> None:
    """Wait; a hang is caught, no speed is asked for."""
    ends = time.monotonic() + 90
    while not true():
        assert time.monotonic() < ends, f"waited too long for {what}"
        time.sleep(0.01)


def some(to: Sinks) -> None:
    """Two hours: frames with and without findings, flagged, failed, and a gap."""
    to.frame({}, frame(0, "2026-11-25T13:59:59.900Z", FISH, track=True))
    to.frame({}, frame(1, "2026-11-25T14:00:00.100Z", []))
    to.frame({}, frame(2, "2026-11-25T14:00:01.100Z", FISH[:1], ["dark", "blurred"]))
    to.frame({}, failed_frame(3, "2026-11-25T14:00:02.100Z"))
    to.gap("2026-11-25T14:00:03.000Z", "2026-11-25T15:10:00.000Z", "silent, no picture")


def test_json_lines_are_the_records_in_the_file_of_their_hour(place: Place, tmp_path: Path) -> None:
    to = sinks(place.to, tmp_path / "data")
    some(to)
    assert to.close(60)
    names = [name.rpartition("-")[0] for name in sorted(place.fetch())]
    assert names == ["reef/2026-11-25/13-5959", "reef/2026-11-25/14-0000"]
    rows = place.rows()
    assert rows[0] == json.loads(frame(0, "2026-11-25T13:59:59.900Z", FISH, track=True))
    assert rows[3] == json.loads(failed_frame(3, "2026-11-25T14:00:02.100Z"))
    assert rows[4] == {
        "schema": "buoy.gap/1",
        "stream": "reef",
        "begin": "2026-11-25T14:00:03.000Z",
        "end": "2026-11-25T15:10:00.000Z",
        "reason": "silent, no picture",
        "dropped": 0,
    }
    assert place.numbers() == [0, 1, 2, 3]
    assert [*(tmp_path / "data").rglob("*.jsonl")] == []


EXPECTED = [
    # status, label, frame, captured, flags, track, error
    ("found", "Diplodus vulgaris", 0, "2026-11-25T13:59:59.900Z", [], 1, None),
    ("found", "Chromis chromis", 0, "2026-11-25T13:59:59.900Z", [], 2, None),
    ("none", None, 1, "2026-11-25T14:00:00.100Z", [], None, None),
    ("found", "Diplodus vulgaris", 2, "2026-11-25T14:00:01.100Z", ["dark", "blurred"], None, None),
    ("failed", None, 3, "2026-11-25T14:00:02.100Z", [], None, "this is no picture"),
    ("gap", None, None, "2026-11-25T14:00:03.000Z", [], None, "silent, no picture"),
]


def test_csv_has_a_row_for_each_detection_each_frame_without_and_each_gap(place: Place, tmp_path: Path) -> None:
    to = sinks(place.to, tmp_path / "data", form="csv")
    some(to)
    assert to.close(60)
    rows = []
    for name, data in sorted(place.fetch().items()):
        assert name.endswith(".csv")
        rows += csv.DictReader(data.decode().splitlines())
    read = [
        (
            row["status"], row["label"] or None, int(row["frame"]) if row["frame"] else None, row["captured"],
            row["flags"].split(), int(row["track_id"]) if row["track_id"] else None, row["error"] or None,
        )
        for row in rows
    ]  # fmt: skip
    assert read == EXPECTED
    assert rows[0]["station"] == "OBSEA"
    assert rows[0]["aphia_id"] == "126505"
    assert rows[5]["until"] == "2026-11-25T15:10:00.000Z"


def test_parquet_has_the_same_rows_with_types(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    to = sinks(place.to, tmp_path / "data", form="parquet")
    some(to)
    assert to.close(60)
    tables = [parquet.read_table(pyarrow.BufferReader(data)) for _, data in sorted(place.fetch().items())]
    rows = [row for table in tables for row in table.to_pylist()]
    read = [
        (
            row["status"], row["label"], row["frame"],
            row["captured"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            row["flags"] or [], row["track_id"], row["error"],
        )
        for row in rows
    ]  # fmt: skip
    assert read == EXPECTED
    assert rows[0]["score"] == 0.91
    assert (rows[0]["x1"], rows[0]["y2"], rows[0]["aphia_id"], rows[0]["camera"]) == (1.0, 40.25, 126505, "east")
    assert rows[5]["until"] == datetime(2026, 11, 25, 15, 10, tzinfo=UTC)
    assert tables[0].schema == tables[1].schema  # so that a whole folder can be read as one table


def test_the_file_of_an_hour_that_is_over_is_sent_though_nothing_more_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_IDLE_S", 0.1)
    place = in_folder(tmp_path / "out")
    to = sinks(place.to, None)
    to.frame({}, frame(0, "2020-01-01T13:59:59.900Z", FISH))
    to.frame({}, frame(1, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z", FISH))
    until(lambda: place.numbers() == [0], "the hour that is over")
    assert to.close(60)
    assert place.numbers() == [0, 1]
    assert not Path(to.status()[0]["spool"]).exists()


def test_a_part_is_sent_when_it_is_old_or_large_enough(tmp_path: Path) -> None:
    place = in_folder(tmp_path / "out")
    to = sinks(place.to, None, Limits(part_bytes=10_000))
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
    for number in range(100):
        to.frame({}, frame(number, now, FISH))
        until(lambda number=number: to.status()[0]["written"] == number + 1)
    until(lambda: len(place.fetch()) >= 5)
    assert to.close(60)
    assert sorted(place.numbers()) == [*range(100)]


def test_kills_at_any_moment_lose_nothing_that_was_written_and_repeat_nothing(place: Place, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first, safe = 0, set[int]()
    for attempt in range(5):
        command = [sys.executable, str(HERE / "support" / "sink_child.py"), place.to, "jsonl", str(data), str(first)]
        env = {**os.environ, "PYTHONPATH": str(HERE)}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            written = 0
            while written < 40 + 61 * attempt:
                line = child.stdout.readline()
                assert line, "the child ended of itself"
                written = int(line)
            child.kill()
            rest = child.stdout.read().splitlines(keepends=True)
        written = max([written, *(int(line) for line in rest if line.endswith("\n"))])
        safe |= set(range(first, first + written))
        first += 100_000
    assert sinks(place.to, data).close(60)
    numbers = place.numbers()
    assert len(numbers) == len(set(numbers))
    assert safe <= set(numbers)
    assert not [name for name in place.fetch() if "/." in name]
    assert [path.name for path in data.rglob("*") if path.is_file()] == [".sink.json"]


def test_half_a_line_at_the_end_of_a_part_is_cut_off(tmp_path: Path) -> None:
    place = in_folder(tmp_path / "out")
    to = sinks(place.to, tmp_path / "data")
    folder = Path(to.status()[0]["spool"])
    assert to.close(60)
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps(json.loads(frame(7))).encode()
    (folder / "2026-11-25_14-0000-aaaaaaaa.jsonl").write_bytes(line + b"\n" + line[:-5])
    (folder / "2026-11-25_15-0000-bbbbbbbb.jsonl").write_bytes(line[:70_000])
    assert sinks(place.to, tmp_path / "data").close(60)
    assert place.numbers() == [7]
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_a_power_cut_left_in_a_part_is_kept_aside_and_the_rest_is_sent(tmp_path: Path, form: str) -> None:
    pytest.importorskip("pyarrow")
    place = in_folder(tmp_path / "out")
    to = sinks(place.to, tmp_path / "data", form=form)
    folder = Path(to.status()[0]["spool"])
    assert to.close(60)
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps(json.loads(frame(7))).encode()
    (folder / "2026-11-25_14-0000-aaaaaaaa.jsonl").write_bytes(line + b"\n" + bytes(4096) + b"\n" + line + b"\n")
    assert sinks(place.to, tmp_path / "data", form=form).close(60)
    assert len(place.fetch()) == 1
    assert len([*folder.glob(".*.unreadable")]) == 1


def test_a_store_that_is_down_loses_nothing_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "buoy.serve.sinks")
    with minio(tmp_path / "minio") as server:
        place = in_minio(server, "results", monkeypatch)
        server.stop()
        to = sinks(place.to, tmp_path / "data", Limits(part_s=0.1))
        for number in range(50):
            to.frame({}, frame(number, found=FISH))
            time.sleep(0.005)
        until(lambda: to.status()[0]["state"] == "failing", "the outage to be noticed")
        assert "running" in to.status()[0]["error"]["hint"]
        server.restart()
        until(lambda: to.status()[0]["state"] == "ok", "the store to be found again")
        assert to.close(60)
        assert sorted(place.numbers()) == [*range(50)]
    assert to.status()[0]["dropped"] == {}
    assert [record.message for record in caplog.records] == ["a sink fails", "a sink works again"]


def test_a_store_that_hangs_holds_up_neither_frames_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging() as endpoint:
        monkeypatch.setenv("BUOY_S3_ENDPOINT", endpoint)
        monkeypatch.setenv("BUOY_S3_ACCESS_KEY", "key")
        monkeypatch.setenv("BUOY_S3_SECRET_KEY", "secret")
        to = sinks("s3://results/live", tmp_path / "data", Limits(part_s=0.05))
        for number in range(200):
            to.frame({}, frame(number, found=FISH))
            time.sleep(0.002)
        until(lambda: to.status()[0]["written"] == 200, "the spool")
        assert not to.close(0.5)
        kept = [line for path in (tmp_path / "data").rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(kept) == 200


def test_the_spool_has_a_bound_and_what_is_lost_is_said_in_the_data(tmp_path: Path) -> None:
    blocked = tmp_path / "out"
    blocked.write_bytes(b"a file stands where the folder should be")
    to = sinks(str(blocked), tmp_path / "data", Limits(queue_s=0.3, part_s=0.1, spool_bytes=60_000))
    number = 0
    while number < 100 or not to.status()[0]["dropped"].get("late"):
        to.frame({}, frame(number, f"2026-11-25T14:{number // 60 % 60:02}:{number % 60:02}.000Z", found=FISH))
        number += 1
        time.sleep(0.005)
    assert to.status()[0]["state"] == "failing"
    blocked.unlink()
    place = in_folder(blocked)
    until(lambda: to.status()[0]["state"] == "ok", "the sink to recover")
    to.frame({}, frame(number, "2026-11-25T14:59:59.000Z", found=FISH))
    until(lambda: to.status()[0]["waiting"] == 0)
    assert to.close(60)
    shown = to.status()[0]
    numbers = place.numbers()
    lost = [row for row in place.rows() if row["schema"] == "buoy.gap/1"]
    assert len(numbers) == len(set(numbers)) == shown["written"]
    assert number + 1 == shown["written"] + shown["dropped"]["late"]
    assert sum(row["dropped"] for row in lost) == shown["dropped"]["late"]
    assert all(row["reason"] == "sink: late" and row["begin"] <= row["end"] for row in lost)


def test_a_clock_that_jumps_opens_few_files_and_loses_nothing(tmp_path: Path) -> None:
    place = in_folder(tmp_path / "out")
    to = sinks(place.to, tmp_path / "data")
    for number in range(100):
        to.frame({}, frame(number, f"20{number:02}-01-01T00:00:00.000Z", FISH))
    until(lambda: to.status()[0]["written"] == 100)
    assert len([path for path in Path("/proc/self/fd").iterdir() if str(tmp_path / "data") in str(path.resolve())]) <= 6
    assert to.close(60)
    assert sorted(place.numbers()) == [*range(100)]


def test_two_that_write_to_one_spool_do_not_take_each_others_parts(tmp_path: Path) -> None:
    place = in_folder(tmp_path / "out")
    both = [sinks(place.to, tmp_path / "data", Limits(part_s=0.02)) for _ in range(2)]
    for number in range(300):
        both[number % 2].frame({}, frame(number, found=FISH))
        time.sleep(0.001)
    for to in both:
        to.close(60)
    assert sinks(place.to, tmp_path / "data").close(60)
    assert sorted(place.numbers()) == [*range(300)]


def test_parts_of_a_stream_that_is_gone_are_sent_when_the_service_starts_again(tmp_path: Path) -> None:
    blocked, data = tmp_path / "out", tmp_path / "data"
    blocked.write_bytes(b"a file stands where the folder should be")
    to = sinks(str(blocked), data, form="csv")
    some(to)
    assert not to.close(0.5)
    running = read_spec(
        {"name": "reef", "source": "push:", "sinks": [{"kind": "bucket", "to": str(blocked), "format": "csv"}]}
    )
    assert open_left(data, [running]) == []  # it sends its own
    blocked.unlink()
    (left,) = open_left(data, [])
    assert left.close(60)
    lines = [
        line
        for _, file in sorted(in_folder(blocked).fetch().items())
        for line in csv.DictReader(file.decode().splitlines())
    ]
    assert [line["frame"] for line in lines] == ["0", "0", "1", "2", "3", ""]
    assert {line["station"] for line in lines} == {"OBSEA"}
    assert open_left(data, []) == []


@pytest.mark.parametrize(("to", "word"), [("gs://x/y", "no place"), ("s3:///x", "no bucket"), ("s3://x/y", "ENDPOINT")])
def test_what_can_never_work_is_refused_at_once(to: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUOY_S3_ENDPOINT", raising=False)
    with pytest.raises(UsageError, match=word):
        sinks(to, None)


def test_a_full_disk_is_told_counted_and_survived(tmp_path: Path) -> None:
    command = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces (unshare --map-root-user --mount)")
    data, report = tmp_path / "data", tmp_path / "report.json"
    data.mkdir()
    child = HERE / "support" / "full_disk_child.py"
    script = f"""
        mount -t tmpfs -o size=128k buoy "{data}" || exit 99
        "{sys.executable}" "{child}" "{tmp_path / "out"}" "{data}" "{report}"
    """
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    ended = subprocess.run([*command, "/bin/sh", "-c", script], env=env, capture_output=True, text=True, timeout=270)
    if ended.returncode == 99:
        pytest.skip(f"this machine allows no tmpfs in a namespace: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(report.read_bytes())
    place = in_folder(tmp_path / "out")
    numbers, rows = place.numbers(), place.rows()
    assert told["full"]["state"] == "failing"
    assert "No space left on device" in told["full"]["error"]["message"]
    assert "free some space" in told["full"]["error"]["hint"]
    assert told["end"]["state"] == "ok"
    assert len(numbers) == len(set(numbers)) == told["end"]["written"]
    assert told["given"] == told["end"]["written"] + told["end"]["dropped"]["late"]
    assert told["end"]["dropped"]["late"] == sum(row.get("dropped", 0) for row in rows)
    assert ended.stderr.count("a sink fails") == 1


def test_nothing_is_lost_when_the_store_was_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUOY_S3_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    to = sinks("s3://results/live", tmp_path / "data")
    some(to)
    assert not to.close(1.0)
    kept = [line for path in sorted((tmp_path / "data").rglob("*.jsonl")) for line in path.read_bytes().splitlines()]
    assert len(kept) == 5
