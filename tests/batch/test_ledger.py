"""Ledger, leases, control and the probe on real stores."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from buoy.batch.area import Area, Home, open_area
from buoy.batch.clock import SystemClock
from buoy.batch.control import Control
from buoy.batch.layout import Cell, claim_key, parse_claim
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger
from buoy.batch.probe import Caps, probe
from buoy.errors import StoreError, UsageError
from buoy.store import Object, open_store
from support.minio import MinioServer


class PlayedClock:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture(params=["folder", "minio"])
def area(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Area]:
    if request.param == "folder":
        yield Home(str(tmp_path / "any Name ü")).run("a-run", make=True)
        return
    server: MinioServer = request.getfixturevalue("minio_server")
    store = open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key)
    bucket = f"test-{secrets.token_hex(6)}"
    store.create_bucket(bucket)
    yield Area(store, bucket, "some where/.runs/a-run/")
    store.delete_bucket(bucket)
    store.close()


@pytest.fixture
def ledger(area: Area) -> Ledger:
    return Ledger(area, SystemClock(), Random(1))


def test_a_record_is_created_once_and_everybody_learns_what_stands(ledger: Ledger) -> None:
    first = ledger.create("claim/x", {"pilot": "a"})
    second = ledger.create("claim/x", {"pilot": "b"})
    assert (first.won, second.won) == (True, False)
    assert second.record == first.record == ledger.read("claim/x")
    assert ledger.read("claim/y") is None
    assert [each.key for each in ledger.names("claim/")] == ["claim/x"]


def test_a_creator_whose_reply_was_lost_learns_that_it_was_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, lost = Area.put, []

    def unheard(*args: object, **options: object) -> Object:
        found = put(*args, **options)  # type: ignore[arg-type]
        if not lost:
            lost.append(found)
            raise StoreError("the connection was closed", retry=True)
        return found

    monkeypatch.setattr(Area, "put", unheard)
    assert ledger.create("fin/x", {"parts": []}).won
    assert ledger.patience.retries == 1


def test_what_cannot_pass_is_not_tried_again(area: Area) -> None:
    clock = PlayedClock()
    ledger = Ledger(area, clock, Random(1), patience_s=60)

    def refused() -> None:
        raise StoreError("access denied")

    def broken() -> None:
        raise StoreError("slow down", retry=True)

    with pytest.raises(StoreError, match="denied"):
        ledger.patiently(refused)
    assert clock.slept == []
    with pytest.raises(StoreError, match="slow"):
        ledger.patiently(broken)
    assert 60 < sum(clock.slept) < 90
    ends = [piece for piece in clock.slept if piece != 1.0]  # longer waits are in pieces
    assert len(set(ends)) == len(ends) > 4


def test_orders_are_obeyed_and_cancelling_is_for_good(ledger: Ledger) -> None:
    control, other = Control(ledger), Control(ledger)
    assert control.look().state == "running"
    control.give("running", by="me", pilots=4)
    control.give("paused", by="me", reason="lunch")
    assert other.look().state == "paused"
    assert (other.order.pilots, other.order.reason, other.order.number) == (4, "lunch", 2)
    assert other.give("paused", by="you").number == 2
    other.give("cancelled", by="you")
    with pytest.raises(UsageError, match="cancelled"):
        control.give("running", by="me")


def test_the_probe_tells_what_the_store_does_and_leaves_nothing(area: Area) -> None:
    assert probe(area) == Caps(create_only=True, create_race=True, pinned_reads=True, ranges=True)
    assert list(area.walk()) == []


def test_the_probe_sees_that_conditions_are_ignored(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    put, get = Area.put, Area.get
    monkeypatch.setattr(Area, "put", lambda self, key, body, create_only=False: put(self, key, body))
    monkeypatch.setattr(
        Area, "get", lambda self, key, start=0, stop=None, etag="": get(self, key, start=start, stop=stop)
    )
    caps = probe(area)
    assert not caps.create_only
    assert not caps.pinned_reads


def beat(pilot: str, etag: str) -> Object:
    return Object("run", f"hb/{pilot}", 1, etag, 0.0)


def test_a_lease_is_over_when_the_heartbeat_stands_still_on_our_clock() -> None:
    clock = PlayedClock()
    watch = LeaseWatch(clock, lease_s=90)
    for number in range(10):  # beating every 30 s, seen every 30 s
        watch.see([beat("a", f"e{number}")], [])
        assert not watch.expired("cell-1", "a")
        clock.now_s += 30
    clock.now_s += 59
    watch.see([beat("a", "e9")], [])
    assert not watch.expired("cell-1", "a")
    clock.now_s += 1
    assert watch.expired("cell-1", "a")
    assert watch.alive() == []


def test_who_sees_a_claim_for_the_first_time_waits_a_whole_lease() -> None:
    clock = PlayedClock()
    watch = LeaseWatch(clock, lease_s=90)
    assert not watch.expired("cell-1", "never beaten")
    clock.now_s += 89
    assert not watch.expired("cell-1", "never beaten")
    clock.now_s += 1
    assert watch.expired("cell-1", "never beaten")


def test_nobody_waits_for_who_has_said_good_bye() -> None:
    watch = LeaseWatch(PlayedClock(), lease_s=90)
    watch.see([beat("a", "1"), beat("b", "1")], ["a"])
    assert watch.expired("cell-1", "a")
    assert not watch.expired("cell-2", "b")
    assert watch.alive() == ["b"]


def test_keys_of_cells_sort_by_rows_and_read_back() -> None:
    cells = [Cell(0, 9), Cell(9, 10), Cell(10, 250_000), Cell(250_000, 10_000_000), Cell(250_000, 10_000_000, 3)]
    keys = [claim_key(cell, 7) for cell in cells]
    assert keys == sorted(keys)
    assert [parse_claim(key) for key in keys] == [(cell, 7) for cell in cells]


def test_runs_are_found_where_their_results_go(
    tmp_path: Path, minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(minio_server.endpoint, access_key=minio_server.access_key, secret_key=minio_server.secret_key)
    bucket = f"test-{secrets.token_hex(6)}"
    store.create_bucket(bucket)
    monkeypatch.setenv("BUOY_S3_ENDPOINT", minio_server.endpoint)
    monkeypatch.setenv("BUOY_S3_ACCESS_KEY", minio_server.access_key)
    monkeypatch.setenv("BUOY_S3_SECRET_KEY", minio_server.secret_key)
    for home in (Home(str(tmp_path / "out")), Home(f"s3://{bucket}/results"), Home(f"s3://{bucket}")):
        assert home.runs() == []
        for run in ("fish-1", "fish-2"):
            for key in ("spec.json", "fin/1", "fin/2"):
                home.run(run, make=True).put(key, b"{}")
        assert home.runs() == ["fish-1", "fish-2"]
    store.delete_bucket(bucket)


def test_a_source_is_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "Cámara 1 (old)"
    folder.mkdir()
    (folder / "a b.jpg").write_bytes(b"x")
    area = open_area(str(folder))
    assert [(each.key, each.size_bytes) for each in area.walk()] == [("a b.jpg", 1)]
    assert area.get("a b.jpg", etag=next(area.walk()).etag) == b"x"
    with pytest.raises(UsageError, match="no such folder"):
        open_area(str(tmp_path / "absent"))
