"""Manifests of real stores: every key, changes while it is listed, ranges, what is new since, flat memory."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buoy.batch import listing, ranges
from buoy.batch.area import Area, Home
from buoy.batch.clock import SystemClock
from buoy.batch.fetch import Ahead
from buoy.batch.fin import Attempt
from buoy.batch.ledger import Ledger
from buoy.batch.listing import AreaLister
from buoy.batch.manifest import Listed, Lister, ManifestRows, write_manifest
from buoy.batch.merge import merge
from buoy.batch.patience import Patience
from buoy.batch.pattern import KeyPattern
from buoy.batch.rows import Liner, encode
from buoy.batch.runner import ItemRunner
from buoy.batch.seal import Leaf, make_seal
from buoy.batch.sieve import Sieve
from buoy.batch.since import NewSince
from buoy.batch.spec import Filters, pin_model
from buoy.batch.tables import read_table
from buoy.errors import StoreError
from buoy.store import Object, Store, open_store
from buoy.store.names import key_fault
from support.far import far_away
from support.minio import MinioServer
from support.need import CHECKOUT
from support.tiny import make_model, picture_with_squares, png

ANY = Filters(suffixes=("",))
PICTURE = png(picture_with_squares((0, 0)))
numbers = count()


@pytest.fixture(scope="module")
def minio(minio_server: MinioServer) -> Iterator[tuple[Store, str]]:
    store = open_store(minio_server.endpoint, access_key=minio_server.access_key, secret_key=minio_server.secret_key)
    bucket = f"test-{secrets.token_hex(6)}"
    store.create_bucket(bucket)
    yield store, bucket
    store.delete_bucket(bucket)
    store.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(str(tmp_path_factory.mktemp("home")))


def new_ledger(home: Home) -> Ledger:
    return Ledger(home.run(f"run-{next(numbers)}", make=True), SystemClock(), Random(1))


# Keys

LETTERS = st.characters(codec="utf-8", exclude_characters="\0/")
#: What people and programs have put into names.
ODD = [
    "a b", "a+b", "a%2Bb", "100%", "%zz", "it's", '"q"', "a\nb", "a\r\nb", "tab\t", "\x01\x1f\x7f", "\u00e9", "e\u0301",
    "\U0001f41f", "a,b", ";", "\\", "\\n", "*", "?", "#x", "&amp;", "<b>", "=1+1", "None", " ", "~", "{key}", "\u2028",
    "\ufeff", "\uffff",
]  # fmt: skip
SEGMENTS = st.one_of(
    st.sampled_from(ODD),
    st.text(LETTERS, min_size=1, max_size=20),
    st.builds(str.__mul__, LETTERS, st.just(60)),
)
KEYS = st.builds("/".join, st.lists(SEGMENTS, min_size=1, max_size=5))


def storable(keys: list[str], prefix: str, *, file: bool) -> list[str]:
    """Those that S3 allows and this store too.

    MinIO and folders have no object below another object, and no segment of more than 255 bytes.
    """
    found: list[str] = []
    for key in (prefix + key for key in keys):
        names = key.split("/")
        if key_fault(key, file=file) or any(len(name.encode()) > 255 for name in names):
            continue
        if not any(f"{other}/".startswith(f"{key}/") or f"{key}/".startswith(f"{other}/") for other in found):
            found.append(key)
    return found


@pytest.fixture(scope="module", params=["folder", "minio"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    if request.param == "minio":
        found: tuple[Store, str] = request.getfixturevalue("minio")
        return found
    store = open_store(str(tmp_path_factory.mktemp("stores")))
    store.create_bucket("source")
    return store, "source"


@pytest.fixture(scope="module")
def runner(place: tuple[Store, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ItemRunner]:
    model = make_model(tmp_path_factory.mktemp("models"))
    info = pin_model(str(model)).info
    ahead = Ahead(Area(*place), Patience(SystemClock(), Random(1), 10.0), fetchers=4, ahead_bytes=1 << 24)
    runner = ItemRunner(
        ahead, Liner(info, KeyPattern("")), model, info, cores=1, timeout_s=60.0, every_s=1.0, most_bytes=4 << 30
    )
    yield runner
    runner.close()


@given(keys=st.lists(KEYS, min_size=1, max_size=8))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_key_comes_through_to_the_tables(
    place: tuple[Store, str], runner: ItemRunner, home: Home, keys: list[str]
) -> None:
    store, bucket = place
    prefix, ledger = f"x{next(numbers)}/", new_ledger(home)
    longest = "/".join(["y" * 250, "\u00e9" * 125, "z" * 250, "\U0001f41f" * 60])
    longest += "/" + "w" * (1023 - len(f"{prefix}{longest}".encode()))
    wanted = storable([*keys, longest], prefix, file=bucket == "source")
    assert len(wanted[-1].encode()) == 1024
    for key in wanted:
        store.put(bucket, key, PICTURE)
    write_manifest(ledger, AreaLister(Area(store, bucket, prefix), Sieve(ANY, prefix), ledger), began_s=0.0)
    rows = list(ManifestRows(ledger).walk())
    assert [row.key for row in rows] == sorted(wanted, key=str.encode)
    done = sorted((each for each in runner.run(rows, lambda: False) if each), key=lambda each: each.row)
    assert {each.status for each in done} == {"ok"}
    stored = ledger.store("att/one", encode(done))
    attempt = Attempt(key=stored.key, etag=stored.etag, sha256=stored.sha256, size_bytes=stored.size_bytes)
    seal = make_seal(ledger, [Leaf(0, len(rows), "all", attempt)])
    results = home.results(f"results-{next(numbers)}")
    merge(ledger, seal, results)
    assert read_table(results.get("results.parquet"))["key"].to_pylist() == [row.key for row in rows]
    lines = list(csv.DictReader(io.StringIO(results.get("results.csv").decode("utf-8"), newline="")))
    assert [line["key"] for line in lines] == [row.key for row in rows]
    assert {line["status"] for line in lines} == {"ok"}


# Changes while it is listed


def test_what_comes_and_goes_while_it_is_listed_is_in_it_once_or_not_at_all(
    minio: tuple[Store, str], home: Home
) -> None:
    store, bucket = minio
    area = Area(store, bucket, f"moving{next(numbers)}/")
    for number in range(1200):
        area.put(f"{number:04d}.jpg", b"x")
    ledger = new_ledger(home)
    objects = AreaLister(area, Sieve(ANY, area.prefix), ledger).objects("", 0)
    seen = [next(objects)]
    area.put("0000-a.jpg", b"x")  # behind the page that is listed
    area.delete("0500.jpg")  # on it: it was there
    area.delete("1100.jpg")  # after it
    area.put("1100-a.jpg", b"x")
    area.put("1150.jpg", b"other")
    seen += objects
    names = [each.key.removeprefix(area.prefix) for each in seen]
    kept = {f"{number:04d}.jpg" for number in range(1200)} - {"1100.jpg"}
    assert names == sorted(kept | {"1100-a.jpg"})
    assert {each.key[-8:]: each.size_bytes for each in seen}["1150.jpg"] == 5


# A listing that is killed


class Given(Lister):
    """Objects that are there already; may break off, and is asked to go on."""

    def __init__(self, objects: list[Listed], breaks: int | None = None) -> None:
        self._objects, self._breaks = objects, breaks

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        assert after == max((e.key for e in self._objects[:skip] if e.fate not in ("outside", "known")), default="")
        for number, each in enumerate(self._objects[skip:]):
            if number == self._breaks:
                raise StoreError("killed")
            yield each


FATES = st.sampled_from(["", "", "empty", "skipped", "outside", "known", "deleted"])


@given(
    st.lists(st.tuples(FATES, st.booleans()), max_size=40), st.lists(st.integers(0, 20), max_size=4), st.integers(1, 7)
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_listing_that_breaks_off_is_the_same_in_the_end(
    home: Home, kinds: list[Any], breaks: list[int], shard_rows: int
) -> None:
    objects = [
        Listed(f"{n:03d}", n, f"e{n}", float(n), fate, altered=altered and not fate)
        for n, (fate, altered) in enumerate(kinds)
    ]
    ledger = new_ledger(home)
    for number in breaks:
        try:
            write_manifest(ledger, Given(objects, number), began_s=9.0, shard_rows=shard_rows)
        except StoreError:
            continue
    index = write_manifest(ledger, Given(objects), began_s=9.0, shard_rows=shard_rows)
    rows = [each for each in objects if each.fate not in ("outside", "known")]
    assert [row[1:] for row in ManifestRows(ledger, shard_rows).walk()] == [each[:-1] for each in rows]
    assert index.rows == len(rows)
    assert index.todo == sum(not each.fate for each in rows)
    assert index.todo_bytes == sum(each.size_bytes for each in rows if not each.fate)
    assert index.fates == {fate: sum(each.fate == fate for each in rows) for fate in ("empty", "skipped", "deleted")}
    assert (index.outside, index.known) == tuple(sum(e.fate == fate for e in objects) for fate in ("outside", "known"))
    assert (index.younger, index.altered) == (sum(e.modified_s > 9 for e in rows), sum(e.altered for e in rows))


# Ranges


@given(
    st.sets(st.text(st.sampled_from("ab/0\u00e9\U0001f41f"), min_size=1, max_size=6), max_size=60),
    st.integers(1, 30),
    st.data(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_cover_every_key_once_and_in_order(
    home: Home, names: set[str], wanted: int, data: st.DataObject
) -> None:
    keys = sorted(names)

    def walk(after: str) -> Iterator[Object]:
        return (Object("b", key, 1, "e", 2.0) for key in keys[bisect_right(keys, after) :])

    def first(prefix: str, after: str) -> str | None:
        return next((key for key in keys if key > after and key.startswith(prefix)), None)

    after = data.draw(st.sampled_from(["", *keys]))
    bounds = ranges.cut(first, after, wanted)
    assert bounds[0] == after
    assert bounds == sorted(set(bounds))
    found = list(ranges.walk_ranges(new_ledger(home), walk, bounds, "b"))
    assert [each.key for each in found] == [key for key in keys if key > after]


def test_a_store_far_away_is_listed_in_ranges_also_after_a_kill(
    minio: tuple[Store, str], minio_server: MinioServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bucket = minio
    area = Area(store, bucket, f"far{next(numbers)}/")
    for number in range(600):
        area.put(f"cam{number % 3}/{number * 7919 % 1000:04d}.jpg", b"x")
    monkeypatch.setattr(listing, "_FIRST", 100)
    monkeypatch.setattr(ranges, "_PART_ROWS", 7)
    near = new_ledger(home)
    index = write_manifest(near, AreaLister(area, Sieve(ANY, area.prefix), near), began_s=2e9)
    assert near.read(ranges.RANGES) is None
    with far_away(minio_server.port, 0.04) as endpoint:
        distant = open_store(endpoint, access_key=minio_server.access_key, secret_key=minio_server.secret_key)
        far = new_ledger(home)
        lister = AreaLister(Area(distant, bucket, area.prefix), Sieve(ANY, area.prefix), far)
        objects = lister.objects("", 0)
        begin = [next(objects) for _ in range(150)]
        objects.close()  # type: ignore[attr-defined]
        bounds = far.read(ranges.RANGES)
        assert bounds is not None
        assert len(bounds["bounds"]) > 10
        assert next(each.key for each in lister.objects(begin[-1].key, 150)) > begin[-1].key
        assert write_manifest(far, lister, began_s=2e9) == index
        distant.close()
    assert list(ManifestRows(far).walk()) == list(ManifestRows(near).walk())


# What is new


@given(
    st.lists(st.dictionaries(st.integers(0, 12), st.sampled_from("AB"), max_size=12), min_size=1, max_size=3),
    st.dictionaries(st.integers(0, 12), st.sampled_from("AB"), max_size=12),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_new_is_what_no_manifest_below_has(
    home: Home, below: list[dict[int, str]], now: dict[int, str]
) -> None:
    def given_objects(contents: dict[int, str]) -> Given:
        return Given([Listed(f"{key:02d}", 1, etag, 0.0, "") for key, etag in sorted(contents.items())])

    ledgers = [new_ledger(home) for _ in below]
    for ledger, contents in zip(ledgers, below, strict=True):
        write_manifest(ledger, given_objects(contents), began_s=9.0, shard_rows=5)
    top = new_ledger(home)
    index = write_manifest(top, NewSince(given_objects(now), ledgers), began_s=9.0)
    new = {key for key, etag in now.items() if not any(each.get(key) == etag for each in below)}
    assert [row.key for row in ManifestRows(top).walk()] == [f"{key:02d}" for key in sorted(new)]
    assert index.known == len(now) - len(new)
    assert index.altered == sum(any(key in each for each in below) for key in new)


# Memory


def probed(kind: str, keys: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.batch.manifest", kind, str(keys), str(folder)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests")}
    found: dict[str, float] = json.loads(subprocess.check_output(command, env=env, timeout=250))
    assert found["rows"] == keys
    return found


@pytest.mark.parametrize(("kind", "small", "large"), [("manifest", 250_000, 1_000_000), ("list", 250_000, 500_000)])
def test_memory_does_not_grow_with_the_keys(tmp_path: Path, kind: str, small: int, large: int) -> None:
    less, more = probed(kind, small, tmp_path / "small"), probed(kind, large, tmp_path / "large")
    assert more["peak_mib"] < 300
    # If objects were kept it would be 100 MiB and more, one shard of 5 MiB each if what was written were kept.
    assert more["peak_mib"] - less["peak_mib"] < 12
    assert more["bytes_per_key"] <= 25
