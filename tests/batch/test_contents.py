"""What stands in the results: each field of the tables as `buoy predict` has it, and what is told about the tables."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import secrets
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from buoy import machine
from buoy.batch.area import Home, open_area
from buoy.batch.clock import SystemClock
from buoy.batch.estimate import sample_rows
from buoy.batch.ledger import Ledger
from buoy.batch.manifest import Index, Listed, Lister, ManifestRows, write_manifest
from buoy.batch.tables import read_table
from buoy.store import open_store
from support.batch import BatchRun, make_source
from support.minio import MinioServer
from support.tiny import make_model, picture_with_squares, png

GOOD, OTHER = png(picture_with_squares((0, 0))), png(picture_with_squares((1, 1), (2, 2)))
BAD = GOOD[:40]
FAILED = ("failed", "changed", "deleted")
#: Columns that have nothing unless a row says something.
NOTHING = dict.fromkeys([
    "time", "station", "camera", "label", "class_id", "score", "x1", "y1", "x2", "y2", "taxon", "findings",
    "width", "height", "sha256", "task", "error", "message", "hint",
])  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"))


def done(run: BatchRun, *options: str, code: int = 0) -> dict[str, Any]:
    """What a run to its end tells."""
    ended = run.run(*options, "--json")
    assert ended.returncode == code, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])["done"]
    return told


def parquet(run: BatchRun, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run.results()[f"{name}.parquet"]).to_pylist()
    return rows


def lines_of(run: BatchRun, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run.results()[f"{name}.csv"].decode(), newline="")))


def same(rows: Sequence[dict[str, Any]], lines: Sequence[dict[str, str]]) -> None:
    """A table as CSV says what it says as Parquet, each text read as what it is there."""
    read = [
        {name: line[name] if row.get(name) is None else type(row[name])(line[name]) for name in line}
        for row, line in zip(rows, lines, strict=True)
    ]
    assert read == [{name: "" if value is None else value for name, value in row.items()} for row in rows]


# Rows


def two_squares() -> bytes:
    """Wider than high, and no square is where it would be with its coordinates in another order."""
    pixels = picture_with_squares((0, 3))[:32]
    pixels[16:32, :16] = 200
    return png(pixels)


PLACES = {
    "OBSEA/cam 1/20110203_040506.png": ("2011-02-03T04:05:06", "OBSEA", "cam 1"),
    "OBSEA/cam 1/20110203_040507.png": ("2011-02-03T04:05:07", "OBSEA", "cam 1"),
    "OBSEA/c\u00e1m,2/20120304_050607.png": ("2012-03-04T05:06:07", "OBSEA", "c\u00e1m,2"),
    "OBSEA/c\u00e1m,2/20120304_050608.png": ("2012-03-04T05:06:08", "OBSEA", "c\u00e1m,2"),
    "broken.png": (None, None, None),
}
TWO, NONE, EMPTY, RED, BROKEN = PLACES


@pytest.fixture(scope="module")
def looked(model: Path, tmp_path_factory: pytest.TempPathFactory) -> BatchRun:
    """A run over one picture of each kind."""
    folder = tmp_path_factory.mktemp("looked")
    contents = {
        TWO: two_squares(), NONE: png(picture_with_squares()[:, :48]), EMPTY: b"",
        RED: png(picture_with_squares((1, 2), red=True)), BROKEN: BAD,
    }  # fmt: skip
    for key, data in contents.items():
        (folder / "source" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / key).write_bytes(data)
    pattern = ("--key-pattern", "{station}/{camera}/{time:%Y%m%d_%H%M%S}.png")
    run = BatchRun(model, str(folder / "source"), str(folder / "out"), {}, pattern)
    assert done(run, code=3)["counts"] == {"empty": 1, "failed": 1, "ok": 3}
    return run


def predicted(run: BatchRun) -> dict[str, Any]:
    """The records of `buoy predict` over the same pictures."""
    command = [str(Path(sys.executable).with_name("buoy")), "predict", str(run.model), run.source, "--json"]
    told = subprocess.run(command, env=run.environ(), capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 3, told.stderr
    records = [json.loads(line) for line in told.stdout.splitlines()]
    return {record["input"]["name"]: record for record in records}


def rows_of(row: int, key: str, etag: str, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows that an object must have by its record."""
    info, error = record["input"], record.get("error")
    common = {
        **NOTHING, **{name: record["model"][name] for name in ("version", "weights_sha256", "maturity")},
        **dict(zip(("time", "station", "camera"), PLACES[key], strict=True)),
        "row": row, "key": key, "item": "", "etag": etag, "key_url": quote(key),
        "model": record["model"]["name"], "size_bytes": info["size_bytes"],
    }  # fmt: skip
    if not info["size_bytes"]:  # the listing says so: nobody reads it
        yield common | {"status": "empty"}
        return
    common |= {"sha256": info["sha256"], "width": info.get("width"), "height": info.get("height")}
    if error is not None:
        yield common | {"status": "failed", "error": error["class"], "message": error["message"], "hint": error["hint"]}
        return
    common |= {"status": "ok", "task": record["task"]}
    for found in record["detections"]:
        taxon = json.dumps(found["taxon"], sort_keys=True) if "taxon" in found else None
        boxes = dict(zip(("x1", "y1", "x2", "y2"), found["box"], strict=True))
        yield common | {name: found[name] for name in ("label", "class_id", "score")} | {"taxon": taxon} | boxes
    if not record["detections"]:
        yield common


def test_each_field_of_each_row_is_what_predict_says(looked: BatchRun) -> None:
    records, source = predicted(looked), open_area(looked.source)
    assert records.keys() == PLACES.keys()
    rows = parquet(looked, "results")
    wanted = [
        line
        for row, key in enumerate(sorted(PLACES))
        for line in rows_of(row, key, source.stat(key).etag, records[key])
    ]
    assert rows == wanted
    same(rows, lines_of(looked, "results"))
    found = [
        (row["key"], row["label"], row["taxon"], *(row[name] for name in ("x1", "y1", "x2", "y2"))) for row in rows
    ]
    # What was painted: predict alone could be as wrong as the table.
    assert [each for each in found if each[1]] == [
        (TWO, "bright", None, 48.0, 0.0, 64.0, 16.0), (TWO, "bright", None, 0.0, 16.0, 16.0, 32.0),
        (RED, "red", '{"aphia_id": 125559}', 32.0, 16.0, 48.0, 32.0),
    ]  # fmt: skip
    sizes = {row["key"]: (row["width"], row["height"]) for row in rows}
    assert sizes == {TWO: (64, 32), NONE: (48, 64), RED: (64, 64), EMPTY: (None, None), BROKEN: (None, None)}
    digests = {row["key"]: row["sha256"] for row in rows if row["key"] != EMPTY}
    assert digests == {key: sha256_of(Path(looked.source) / key) for key in PLACES if key != EMPTY}


def test_an_object_without_a_find_has_one_row(looked: BatchRun) -> None:
    assert Counter(row["key"] for row in parquet(looked, "results")) == {**dict.fromkeys(PLACES, 1), TWO: 2}


# Failures


def test_what_has_no_result_is_told_with_its_reason_in_both_tables(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("good", "changed", "deleted"):
        (source / f"{name}.png").write_bytes(GOOD)
    (source / "broken.png").write_bytes(BAD)
    (source / "empty.png").write_bytes(b"")
    (source / "notes.txt").write_bytes(b"hello")
    with zipfile.ZipFile(source / "some.zip", "w") as archive:
        archive.writestr("a.png", GOOD)
        archive.writestr("b.png", BAD)
    run = BatchRun(model, str(source), str(tmp_path / "out"))
    assert run.run("--dry-run").returncode == 0
    (source / "changed.png").write_bytes(OTHER)
    (source / "deleted.png").unlink()
    assert done(run, code=3)["counts"] == {"changed": 1, "deleted": 1, "empty": 1, "failed": 1, "ok": 2, "skipped": 1}
    failures = parquet(run, "failures")
    told = {(row["key"], row["item"]): (row["status"], row["error"]) for row in failures}
    assert told == {
        ("broken.png", ""): ("failed", "InputError"), ("changed.png", ""): ("changed", "ChangedError"),
        ("deleted.png", ""): ("deleted", "MissingError"), ("some.zip", "b.png"): ("failed", "InputError"),
    }  # fmt: skip
    messages = {row["key"]: row["message"] for row in failures}
    assert "not a readable picture" in messages["broken.png"]
    assert "has changed since it was listed" in messages["changed.png"]
    assert "is not there any more" in messages["deleted.png"]
    assert all(row["hint"] for row in failures)
    results = [row for row in parquet(run, "results") if row["status"] in FAILED]
    assert failures == [{name: row[name] for name in failures[0]} for row in results]
    same(failures, lines_of(run, "failures"))
    # What is as it was not when it was listed is no fault of the pictures, and pauses no run.
    assert run.report()["failures_by_class"] == {"InputError": 1}
    assert "temporalCoverage" not in graph_of(run)["./"]


# The description of the result set


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def graph_of(run: BatchRun) -> dict[str, Any]:
    """What the crate describes, by its id."""
    return {each["@id"]: each for each in json.loads(run.results()["ro-crate-metadata.json"])["@graph"]}


def test_the_crate_says_what_was_made_of_what_by_what(looked: BatchRun) -> None:
    graph, weights = graph_of(looked), sha256_of(looked.model / "tiny.onnx")
    root, run = graph["./"], graph["#run"]
    software, network = (graph[each["@id"]] for each in run["instrument"])
    assert (software["name"], software["softwareVersion"]) == ("buoy", version("buoy"))
    assert (network["name"], network["version"], network["sha256"]) == ("tiny", "1.0", weights)
    assert network["@id"] == f"urn:sha256:{weights}"
    assert run["object"] == {"@id": looked.source}
    assert graph[looked.source]["sha256"] == looked.report()["manifest_sha256"]
    assert root["identifier"] == looked.name
    assert root["temporalCoverage"] == "2011-02-03T04:05:06/2012-03-04T05:06:08"


def test_the_crate_names_every_file_with_the_hash_of_its_bytes(looked: BatchRun) -> None:
    record = looked.ledger.read("done.json")
    assert record is not None
    files, graph = {path.name: path for path in Path(record["results"]).iterdir()}, graph_of(looked)
    parts = {part["@id"] for part in graph["./"]["hasPart"]}
    assert parts | {"ro-crate-metadata.json"} == files.keys()
    assert parts == {part["@id"] for part in graph["#run"]["result"]}
    tables = {name for name in parts if name.endswith((".csv", ".parquet"))}
    assert len(tables) == 4
    for name in tables:
        assert graph[name]["sha256"] == sha256_of(files[name])
        assert graph[name]["contentSize"] == str(files[name].stat().st_size)


# Estimates


def test_a_dry_run_says_what_there_is_and_roughly_what_it_takes(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 600, bad_every=1000)  # longer than it takes to start
    size_bytes = sum(path.stat().st_size for path in source.rglob("*.png"))
    for number in range(7):
        (source / f"cam{number % 3}" / f"notes{number}.txt").write_bytes(bytes(1000))
    (source / "cam0" / "empty.png").write_bytes(b"")
    run = BatchRun(make_model(tmp_path / "models", slow=True), str(source), str(tmp_path / "out"))
    told = run.run("--dry-run", "--json")
    found = json.loads(told.stdout)["found"]
    assert (found["objects"], found["bytes"], found["skipped"], found["empty"]) == (600, size_bytes, 7, 1)
    assert 0 < found["finish_s"]["p10"] <= found["finish_s"]["p90"]
    assert done(run)["counts"] == {"empty": 1, "ok": 600, "skipped": 7}
    core_s = found["seconds_per_object"] * found["objects"]
    assert found["core_hours"] == pytest.approx(core_s / 3600, abs=0.001)
    # Wrong units are off by more, a machine that does other things meanwhile by less.
    assert 1 / 5 < run.report()["worked_s"] * machine.cores() / core_s < 5


class Fated(Lister):
    """Objects with the given fates."""

    def __init__(self, fates: Sequence[str]) -> None:
        self._fates = fates

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        for number, fate in enumerate(self._fates):
            yield Listed(f"{number:06d}.png", 1, "e", 0.0, fate)


def manifest_of(folder: Path, fates: Sequence[str]) -> tuple[ManifestRows, Index]:
    ledger = Ledger(Home(str(folder)).run("run", make=True), SystemClock(), Random(1))
    index = write_manifest(ledger, Fated(fates), began_s=1.0)
    return ManifestRows(ledger), index


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> tuple[ManifestRows, Index]:
    return manifest_of(tmp_path_factory.mktemp("manifest"), [""] * 20_000)


@given(number=st.integers(49, 20_000), seed=st.integers(0, 999))
def test_a_sample_has_objects_from_all_over_the_manifest(
    manifest: tuple[ManifestRows, Index], number: int, seed: int
) -> None:
    rows, index = manifest
    sample = sample_rows(rows, index._replace(rows=number, todo=number), Random(seed))
    assert {row.row * 16 // number for row in sample} == set(range(16))
    assert sample == sorted(set(sample))
    assert len(sample) <= max(48, min(240, number // 20))


@pytest.mark.parametrize(("skipped", "pictures"), [(3000, 40), (20_000, 100), (20_000, 1)], ids=["few", "many", "one"])
def test_pictures_among_much_else_are_in_the_sample(tmp_path: Path, skipped: int, pictures: int) -> None:
    fates = ["skipped"] * skipped + [""] * pictures + ["skipped"] * 500
    rows, index = manifest_of(tmp_path, fates)
    for seed in range(20):
        sample = sample_rows(rows, index, Random(seed))
        assert sample
        assert {row.fate for row in sample} == {""}


# Filters


def test_globs_and_suffixes_choose_objects_and_what_is_no_picture_is_told(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("2011-02/a.png", "2011-02/notes.txt", "2012-01/c.png", "old/2011-02.png", "2011.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(GOOD)
    Image.fromarray(picture_with_squares((0, 0))).save(source / "2011-02" / "B.JPG")
    run = BatchRun(model, str(source), str(tmp_path / "out"), {}, ("--where", "2011-*"))
    told = done(run)
    assert told["counts"] == {"ok": 2, "skipped": 1}
    assert [(row["key"], row["status"], row["label"]) for row in parquet(run, "results")] == [
        ("2011-02/B.JPG", "ok", "bright"), ("2011-02/a.png", "ok", "bright"), ("2011-02/notes.txt", "skipped", None),
    ]  # fmt: skip
    assert told["report"]["outside_filters"] == 3
    assert parquet(run, "failures") == []


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty source."""
    if request.param == "folder":
        (tmp_path / "source").mkdir()
        yield str(tmp_path / "source")
        return
    server: MinioServer = request.getfixturevalue("minio_server")
    store = open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key)
    bucket = f"test-{secrets.token_hex(6)}"
    store.create_bucket(bucket)
    monkeypatch.setenv("BUOY_S3_ENDPOINT", server.endpoint)
    monkeypatch.setenv("BUOY_S3_ACCESS_KEY", server.access_key)
    monkeypatch.setenv("BUOY_S3_SECRET_KEY", server.secret_key)
    yield f"s3://{bucket}/in/"
    store.delete_bucket(bucket)
    store.close()


def test_results_that_lie_in_the_source_are_never_its_objects(model: Path, place: str) -> None:
    source = open_area(place)
    source.put("a.png", GOOD)
    # With these, none of our files is left out only because it is no picture.
    suffixes = [word for suffix in ("png", "csv", "parquet", "json") for word in ("--suffix", suffix)]
    run = BatchRun(model, place, place, {}, (*suffixes, "--new-since", "last"))
    first = done(run)
    assert first["counts"] == {"ok": 1}
    source.put("b.png", OTHER)
    second = done(run)
    assert second["counts"] == {"ok": 1}
    assert (second["report"]["known"], second["report"]["new"]) == (1, 1)
    again = done(BatchRun(model, place, place, {}, (*suffixes, "--again", "1")))
    assert again["counts"] == {"ok": 2}
    home, _, name = again["results"].rpartition("/")
    results = Home(home).results(name)
    keys = read_table(results.get("results.parquet"))["key"].to_pylist()
    assert [key.rpartition("/")[2] for key in keys] == ["a.png", "b.png", "b.png"]
    graph = {each["@id"]: each for each in json.loads(results.get("ro-crate-metadata.json"))["@graph"]}
    assert graph["#run"]["object"] == {"@id": place}
