"""Where runs come from, end to end: lists, inventories, filters, zips and videos, retries, catch-ups."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import signal
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from buoy.batch.area import Home
from buoy.batch.merge import merge
from buoy.batch.run import open_ledger
from buoy.batch.seal import read_seal
from buoy.batch.work import read_spec
from buoy.store import open_store
from buoy.store.s3 import S3Store
from support.batch import BatchRun, make_source
from support.inventory import entry, inventory
from support.minio import MinioServer
from support.tiny import make_model, picture_with_squares, png

GOOD, OTHER = png(picture_with_squares((0, 0))), png(picture_with_squares((1, 1), (2, 2)))
BAD = GOOD[:40]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"))


class Bucket:
    """A bucket with pictures, and the environment in which it is reached."""

    def __init__(self, server: MinioServer) -> None:
        self.store = open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key)
        self.name = f"test-{secrets.token_hex(6)}"
        self.store.create_bucket(self.name)
        self.env = {
            "BUOY_S3_ENDPOINT": server.endpoint,
            "BUOY_S3_ACCESS_KEY": server.access_key,
            "BUOY_S3_SECRET_KEY": server.secret_key,
        }

    def put(self, **objects: bytes) -> None:
        for name, data in objects.items():
            self.store.put(self.name, f"in/{name}.png", data)


@pytest.fixture
def bucket(minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket(minio_server)
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    yield bucket
    bucket.store.delete_bucket(bucket.name)
    bucket.store.close()


def in_bucket(model: Path, bucket: Bucket, *options: str) -> BatchRun:
    return BatchRun(model, f"s3://{bucket.name}/in/", f"s3://{bucket.name}/out", bucket.env, options)


def done(run: BatchRun, *words: str, code: int = 0) -> dict[str, Any]:
    """What a command to its end tells: `run` without words."""
    ended = run.say(*words, "--json") if words else run.run("--json")
    assert ended.returncode == code, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])["done"]
    return found


def table(place: str) -> list[dict[str, str]]:
    home, _, name = place.rpartition("/")
    return list(csv.DictReader(io.StringIO(Home(home).results(name).get("results.csv").decode(), newline="")))


def statuses(place: str) -> dict[str, str]:
    """Each object's status by its name; an object may have several rows, but must have one key each."""
    rows: dict[str, dict[str, str]] = {}
    for line in table(place):
        assert rows.setdefault(line["row"], line)["key"] == line["key"]
    assert [int(row) for row in rows] == list(range(len(rows)))
    assert len({line["key"] for line in rows.values()}) == len(rows)
    return {line["key"].rpartition("/")[2].removesuffix(".png"): line["status"] for line in rows.values()}


# Objects that change


def test_folder_markers_have_a_row_as_every_object(model: Path, bucket: Bucket) -> None:
    bucket.put(a=GOOD)
    for key in ("in/", "in/2011/", "in/2011/empty/"):
        bucket.store.put(bucket.name, key, b"")
    bucket.put(**{"2011/b": GOOD})
    told = done(in_bucket(model, bucket))
    assert told["counts"] == {"ok": 2, "skipped": 3}
    keys = [line["key"] for line in table(told["results"])]
    assert list(dict.fromkeys(keys)) == ["in/", "in/2011/", "in/2011/b.png", "in/2011/empty/", "in/a.png"]


def test_what_changes_and_vanishes_after_it_was_listed_gets_that_status(model: Path, bucket: Bucket) -> None:
    bucket.put(a=GOOD, b=GOOD, c=GOOD, d=GOOD, e=b"")
    run = in_bucket(model, bucket)
    assert run.run("--dry-run").returncode == 0
    bucket.put(b=OTHER, e=GOOD, f=GOOD)
    bucket.store.delete(bucket.name, "in/c.png")
    told = done(run, code=3)
    assert told["counts"] == {"changed": 1, "deleted": 1, "empty": 1, "ok": 2}
    assert statuses(told["results"]) == {"a": "ok", "b": "changed", "c": "deleted", "d": "ok", "e": "empty"}


# Lists


def test_a_list_pins_what_it_names_and_the_store_pins_the_rest(model: Path, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(a=GOOD, b=GOOD, c=GOOD, d=GOOD, unnamed=GOOD)
    found = {each.key: each for each in bucket.store.walk(bucket.name)}
    bucket.put(empty=b"", **{"big": GOOD})
    a, b, c = (found[f"in/{name}.png"] for name in "abc")
    path = tmp_path / "list.csv"
    path.write_text(
        "key,size,etag\n"
        f"{a.key.removeprefix('in/')},{a.size_bytes},{a.etag}\n"
        f"s3://{bucket.name}/{b.key},,\n"
        f"c.png,{c.size_bytes},{'0' * 32}\n"
        "d.png,,\nnever.png,,\nempty.png,,\nd.png,ten,\n"
    )
    run = in_bucket(model, bucket, "--list", str(path))
    ended = run.run("--dry-run")
    assert "1 bad lines in the list" in ended.stderr
    assert "line 8 has the size 'ten': write it in bytes" in ended.stderr
    told = done(run, code=3)
    assert statuses(told["results"]) == {
        "a": "ok", "b": "ok", "c": "changed", "d": "ok", "empty": "empty", "never": "deleted",
    }  # fmt: skip
    etags = {line["key"]: line["etag"] for line in table(told["results"])}
    assert etags[b.key] == b.etag  # not in the list: pinned by what was read
    report = told["report"]
    assert report["list"]["bad_lines"] == 1
    assert sum(report["counts"].values()) == report["objects"] == 6
    path.write_text(path.read_text() + "unnamed.png,,\n")
    other = in_bucket(model, bucket, "--list", str(path)).run("--dry-run", "--json")
    assert json.loads(other.stdout)["found"]["run"] != f"{run.out}/{report['run']}"


def test_versions_that_a_list_names_are_read_though_newer_ones_are_there(
    model: Path, bucket: Bucket, tmp_path: Path
) -> None:
    assert isinstance(bucket.store, S3Store)
    client = bucket.store.client
    client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket=bucket.name, Key="in/a.png", Body=GOOD)["VersionId"]
    second = client.put_object(Bucket=bucket.name, Key="in/a.png", Body=OTHER)["VersionId"]
    gone = client.put_object(Bucket=bucket.name, Key="in/b.png", Body=OTHER)["VersionId"]
    client.delete_object(Bucket=bucket.name, Key="in/b.png")
    path = tmp_path / "list.jsonl"
    versions = [("a", first), ("a", second), ("b", gone), ("a", "00000000-0000-0000-0000-000000000000"), ("b", None)]
    path.write_text("".join(json.dumps({"key": f"{key}.png", "version": v}) + "\n" for key, v in versions))
    told = done(in_bucket(model, bucket, "--list", str(path)), code=3)
    assert told["counts"] == {"deleted": 2, "ok": 3}
    found = Counter(line["key"] for line in table(told["results"]) if line["label"])
    assert found == {"in/a.png": 3, "in/b.png": 2}


def test_an_inventory_in_a_bucket_is_the_source(model: Path, bucket: Bucket, tmp_path: Path) -> None:
    assert isinstance(bucket.store, S3Store)
    client = bucket.store.client
    client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    keys = {"in/a b+%.png": GOOD, 'in/\u00e9,"\n.png': OTHER, "in/gone.png": GOOD, "elsewhere.png": GOOD}
    rows = []
    for key, data in keys.items():
        reply = client.put_object(Bucket=bucket.name, Key=key, Body=data)
        row = entry(key, reply["VersionId"], size=len(data)) | {"Bucket": bucket.name, "ETag": reply["ETag"].strip('"')}
        rows += [row, {**row, "VersionId": "older", "IsLatest": False}]
    rows += [{**rows[0], "Key": "in/deleted.png", "IsDeleteMarker": True}]
    client.delete_object(Bucket=bucket.name, Key="in/gone.png", VersionId=rows[4]["VersionId"])
    client.put_object(Bucket=bucket.name, Key="in/a b+%.png", Body=BAD)  # after the inventory was made
    path = inventory(tmp_path, "CSV", rows, bucket=bucket.name)
    for each in json.loads(path.read_text())["files"]:
        bucket.store.put(bucket.name, each["key"], tmp_path / "data" / each["key"].rpartition("/")[2])
    bucket.store.put(bucket.name, "inv/2026-01-01T00-00Z/manifest.json", path)
    listed = f"s3://{bucket.name}/inv/2026-01-01T00-00Z/manifest.json"
    run = in_bucket(model, bucket, "--list", listed)
    killed = run.run(BUOY_FAILPOINT="coord.shard")
    assert killed.returncode == -signal.SIGKILL
    told = done(run, code=3)
    assert {line["key"]: line["status"] for line in table(told["results"])} == {
        "in/a b+%.png": "ok", "in/\u00e9,\"\n.png": "ok", "in/gone.png": "deleted",
    }  # fmt: skip
    assert told["report"]["outside_filters"] == 1
    assert told["report"]["list"]["older_versions"] == 5


# Filters and patterns


def test_sizes_and_times_choose_objects(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, size_bytes, day in (
        ("small", 500, 5),
        ("right", 3000, 5),
        ("large", 9000, 5),
        ("old", 3000, 1),
        ("new", 3000, 9),
    ):
        (source / f"{name}.png").write_bytes(GOOD + bytes(size_bytes - len(GOOD)))
        os.utime(source / f"{name}.png", (day * 86400, day * 86400))
    run = BatchRun(model, str(source), str(tmp_path / "out"), {}, (
        "--min-size", "1kB", "--max-size", "4KiB", "--since", "1970-01-03", "--until", "1970-01-08",
    ))  # fmt: skip
    told = done(run)
    assert statuses(told["results"]) == {"right": "ok"}
    assert told["report"]["outside_filters"] == 4
    assert "is no size" in BatchRun(model, str(source), str(tmp_path / "o"), {}, ("--min-size", "big")).run().stderr


def test_time_station_and_camera_are_read_from_keys(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("OBSEA/cam1/20110203_040506.png", "OBSEA/cam2/20110203_040507.png", "else/where.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(GOOD)
    pattern = ("--key-pattern", "{station}/{camera}/{time:%Y%m%d_%H%M%S}.png")
    told = done(BatchRun(model, str(source), str(tmp_path / "out"), {}, pattern))
    assert [(line["station"], line["camera"], line["time"]) for line in table(told["results"])] == [
        ("OBSEA", "cam1", "2011-02-03T04:05:06"), ("OBSEA", "cam2", "2011-02-03T04:05:07"), ("", "", ""),
    ]  # fmt: skip
    refused = BatchRun(model, str(source), str(tmp_path / "o"), {}, ("--key-pattern", "{camera}/{time:%Y}.tif")).run()
    assert refused.returncode == 2
    assert "reads none of 3 keys" in refused.stderr


# Objects with many pictures


def video(path: Path, frames: int, per_s: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=per_s)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = picture_with_squares((0, 0)) if number // per_s % 2 else np.zeros((64, 64, 3), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_pictures_in_zips_and_frames_of_videos_are_items_of_one_object(
    model: Path, bucket: Bucket, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name, data in (("b/2.png", OTHER), ("a/1.png", GOOD), ("broken.png", BAD), ("notes.txt", b"hello")):
            archive.writestr(name, data)
    (tmp_path / "bad.zip").write_bytes((tmp_path / "some.zip").read_bytes()[:-30])
    video(tmp_path / "film.mp4", frames=44, per_s=10)
    (tmp_path / "bad.mp4").write_bytes(b"no film" * 100)
    for name in ("some.zip", "bad.zip", "film.mp4", "bad.mp4"):
        bucket.store.put(bucket.name, f"in/{name}", tmp_path / name)
    bucket.put(single=GOOD)
    run = in_bucket(model, bucket, "--suffix", "zip", "--suffix", "mp4", "--suffix", "png", "--every", "1")
    told = done(run, code=3)
    assert told["counts"] == {"failed": 2, "ok": 3}
    lines = table(told["results"])
    items = {
        name: [(line["item"], line["status"], line["label"]) for line in lines if line["key"] == f"in/{name}"]
        for name in ("some.zip", "film.mp4", "single.png")
    }
    found = [("b/2.png", "ok", "bright"), ("b/2.png", "ok", "bright"), ("a/1.png", "ok", "bright")]
    assert items["some.zip"] == [*found, ("broken.png", "failed", ""), ("notes.txt", "failed", "")]
    assert items["film.mp4"] == [
        ("frame-00000000", "ok", ""), ("frame-00000010", "ok", "bright"), ("frame-00000020", "ok", ""),
        ("frame-00000030", "ok", "bright"), ("frame-00000040", "ok", ""),
    ]  # fmt: skip
    assert items["single.png"] == [("", "ok", "bright")]
    failed = {line["key"]: line["error"] for line in lines if line["status"] == "failed" and line["item"] == ""}
    assert failed.keys() == {"in/bad.zip", "in/bad.mp4"}


# Retries


def merged_again(home: Home, run: str, folder: Path) -> dict[str, bytes]:
    ledger = open_ledger(home, run)
    seal = read_seal(ledger)
    assert seal is not None
    results = Home(str(folder)).results("again")
    return {file.name: results.get(file.name) for file in merge(ledger, seal, results, read_spec(ledger).base)}


def test_a_retry_lays_its_rows_over_those_of_the_run(model: Path, bucket: Bucket, tmp_path: Path) -> None:
    names = [f"n{number:02d}" for number in range(20)]
    bucket.put(**{name: BAD if name in ("n03", "n07", "n11") else GOOD for name in names})
    run = in_bucket(model, bucket)
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 3, 4, 12, 20)
    bucket.put(n01=OTHER)
    bucket.store.delete(bucket.name, "in/n19.png")
    bucket.store.delete(bucket.name, "in/n15.png")
    first = done(run, code=3)
    assert first["counts"] == {"changed": 1, "deleted": 2, "failed": 3, "ok": 14}
    command = first["report"]["retry"].split()
    assert command[:3] == ["buoy", "batch", "retry"]

    bucket.put(n03=OTHER, n15=GOOD, n11=b"")
    second = done(run, *command[2:], code=3)
    assert second["counts"] == {"deleted": 1, "empty": 1, "failed": 1, "ok": 17}
    wanted = dict.fromkeys(names, "ok") | {"n07": "failed", "n11": "empty", "n19": "deleted"}
    assert statuses(second["results"]) == wanted
    report = second["report"]
    assert report["retry_of"] == first["report"]["run"]
    assert (report["retried"], report["objects"], sum(report["counts"].values())) == (6, 20, 20)
    boxes = Counter(line["key"] for line in table(second["results"]) if line["label"])
    assert boxes["in/n01.png"] == boxes["in/n03.png"] == 2
    failures = {line["key"]: line for line in table(second["results"]) if line["status"] in ("failed", "deleted")}
    assert failures.keys() == {"in/n07.png", "in/n19.png"}

    # A retry of the retry, killed while it merges; the seal decides the bytes.
    bucket.put(n07=GOOD, n19=GOOD)
    killed = run.say(*report["retry"].split()[2:], "--json", BUOY_FAILPOINT="coord.merge")
    assert killed.returncode == -signal.SIGKILL
    third = done(run, *report["retry"].split()[2:])
    assert third["counts"] == {"empty": 1, "ok": 19}
    assert third["report"]["retry"] == ""
    assert statuses(third["results"]) == dict.fromkeys(names, "ok") | {"n11": "empty"}
    home = Home(run.out)
    files = merged_again(home, third["report"]["run"], tmp_path)
    kept = home.results(third["results"].rpartition("/")[2])
    assert {name: kept.get(name) for name in files} == files
    nothing = run.say("retry", f"{run.out}/{third['report']['run']}")
    assert nothing.returncode == 0
    assert "nothing to do again" in nothing.stderr
    assert len(home.runs()) == 3


def test_a_run_that_is_not_done_is_not_retried(model: Path, tmp_path: Path) -> None:
    run = BatchRun(model, str(make_source(tmp_path / "source", 5, bad_every=5)), str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    refused = run.say("retry", run.out)
    assert refused.returncode == 2
    assert "is not done yet" in refused.stderr


# Catch-ups


def test_every_night_only_what_is_new_or_changed_is_looked_at(model: Path, bucket: Bucket) -> None:
    bucket.put(a=GOOD, b=GOOD, c=GOOD)
    run = in_bucket(model, bucket, "--new-since", "last")
    first = done(run)
    assert first["counts"] == {"ok": 3}
    assert "since" not in first["report"]
    bucket.put(b=OTHER, d=GOOD)
    killed = run.run(BUOY_FAILPOINT="coord.seal")
    assert killed.returncode == -signal.SIGKILL
    second = done(run)  # goes on with what was begun
    assert statuses(second["results"]) == {"b": "ok", "d": "ok"}
    report = second["report"]
    assert {name: report[name] for name in ("since", "new", "changed_since", "known", "objects")} == {
        "since": first["report"]["run"], "new": 1, "changed_since": 1, "known": 2, "objects": 2,
    }  # fmt: skip
    bucket.put(e=GOOD)
    third = done(run)
    assert statuses(third["results"]) == {"e": "ok"}
    assert third["report"]["since"] == second["report"]["run"]
    assert third["report"]["known"] == 4
    fourth = done(run)
    assert fourth["counts"] == {}
    named = in_bucket(model, bucket, "--new-since", f"{run.out}/{first['report']['run']}", "--again", "1")
    assert statuses(done(named)["results"]) == {"b": "ok", "d": "ok", "e": "ok"}
