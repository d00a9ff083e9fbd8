"""Whole runs over a real MinIO behind proxies that make faults: the same tables, or a pause that says why."""

from __future__ import annotations

import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from batch.checker import faults_of_run
from buoy.store import Store, open_store
from support.batch import BatchRun, make_source
from support.fault_proxy import (
    FORGETS_CONDITIONS,
    LOSES_REPLY,
    PASSES,
    STALE,
    Action,
    FaultProxy,
    Request,
    cut,
    fault_proxy,
    refuses,
)
from support.gateway import until
from support.minio import MinioServer
from support.tiny import make_model, picture_with_squares, png
from support.toxiproxy import Toxiproxy, toxiproxy

ROWS = 40


class Scene:
    """A bucket with pictures, runs over it through the proxies, and the tables that they must have."""

    def __init__(self, server: MinioServer, model: Path, folder: Path) -> None:
        self.server, self.model = server, model
        self.store: Store = open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key)
        self.bucket = f"test-{secrets.token_hex(6)}"
        self.store.create_bucket(self.bucket)
        source = make_source(folder / "source", ROWS, bad_every=20)
        for path in sorted(source.rglob("*.png")):
            self.store.put(self.bucket, f"in/{path.relative_to(source)}", path.read_bytes())
        self.tables: dict[str, bytes] = {}

    def run(self, *options: str) -> BatchRun:
        """A run of its own."""
        out = f"s3://{self.bucket}/out-{secrets.token_hex(4)}"
        return BatchRun(self.model, f"s3://{self.bucket}/in/", out, {}, ("--workers", "2", *options))

    def begun(self, *bounds: int) -> BatchRun:
        """A run whose cells are cut, and that nobody works on."""
        run = self.run()
        assert run.run("--dry-run").returncode == 0
        run.plan(*bounds)
        return run

    def assert_whole(self, run: BatchRun) -> None:
        assert faults_of_run(run, ROWS) == []
        assert run.tables() == self.tables


@pytest.fixture(scope="module")
def scene(minio_server: MinioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUOY_S3_ENDPOINT", minio_server.endpoint)
        patch.setenv("BUOY_S3_ACCESS_KEY", minio_server.access_key)
        patch.setenv("BUOY_S3_SECRET_KEY", minio_server.secret_key)
        scene = Scene(minio_server, make_model(tmp_path_factory.mktemp("models")), tmp_path_factory.mktemp("scene"))
        undisturbed = scene.run()
        ended = undisturbed.run()
        assert ended.returncode == 3, ended.stderr
        scene.tables = undisturbed.tables()
        scene.assert_whole(undisturbed)
        yield scene
        scene.store.delete_bucket(scene.bucket)
        scene.store.close()


@pytest.fixture
def proxy(scene: Scene) -> Iterator[FaultProxy]:
    with fault_proxy(scene.server.port, (scene.server.access_key, scene.server.secret_key)) as proxy:
        yield proxy


def finish(run: BatchRun, proxy: FaultProxy, rule: Callable[[Request, Random], Action]) -> str:
    """The command to its end through the proxy; what it said."""
    proxy.rule = rule
    ended = run.run(BUOY_S3_ENDPOINT=proxy.endpoint)
    assert ended.returncode == 3, ended.stderr
    return ended.stderr


def test_every_fifth_request_fails_and_the_tables_are_the_same(scene: Scene, proxy: FaultProxy) -> None:
    run = scene.begun(0, 10, 20, 30, 40)

    def rule(request: Request, random: Random) -> Action:
        if random.random() >= 0.2:
            return PASSES
        return random.choice([refuses(500, "InternalError"), refuses(503, "SlowDown")])

    finish(run, proxy, rule)
    scene.assert_whole(run)
    assert sum(number for (action, _, _), number in proxy.met.items() if action == "refuses") >= 20


def test_lost_replies_to_puts_of_every_kind_change_nothing(scene: Scene, proxy: FaultProxy) -> None:
    run = scene.run()
    lost: Counter[str] = Counter()
    often: dict[str, str] = {}

    def rule(request: Request, random: Random) -> Action:
        """The first reply of each key is lost; of one claim, answer and so on all that boto3 itself asks for."""
        if request.method != "PUT" or request.kind == "probe":
            return PASSES
        many = request.kind in ("claim", "fin", "seal.json") and often.setdefault(request.kind, request.key)
        lost[request.key] += 1
        return LOSES_REPLY if lost[request.key] <= (5 if many == request.key else 1) else PASSES

    finish(run, proxy, rule)
    scene.assert_whole(run)
    kinds = {kind for action, method, kind in proxy.met if (action, method) == ("loses reply", "PUT")}
    assert kinds >= {
        "claim", "att", "fin", "ctl", "coord", "slot", "hb", "gone", "manifest", "spec.json", "caps.json", "plan.json",
        "seal.json", "done.json",
    }  # fmt: skip


def test_all_of_a_ledger_but_heartbeats_is_written_once_and_never_again(scene: Scene, proxy: FaultProxy) -> None:
    client, bucket = scene.store.client, f"test-{secrets.token_hex(6)}"  # type: ignore[attr-defined]
    scene.store.create_bucket(bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    options = ("--workers", "2")
    run = BatchRun(scene.model, f"s3://{scene.bucket}/in/", f"s3://{bucket}/out", options=options)
    lost: set[str] = set()

    def rule(request: Request, random: Random) -> Action:
        """Whoever hears no reply has reason to write again."""
        if request.method != "PUT" or request.kind in ("", "probe") or request.key in lost:
            return PASSES
        lost.add(request.key)
        return LOSES_REPLY

    proxy.rule = rule
    assert run.run("--dry-run", BUOY_S3_ENDPOINT=proxy.endpoint).returncode == 0
    run.plan(*range(0, ROWS + 1, 5))
    killed = run.run(BUOY_S3_ENDPOINT=proxy.endpoint, BUOY_FAILPOINT="coord.merge")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finish(run, proxy, rule)
    scene.assert_whole(run)
    written: Counter[str] = Counter()
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="out/.runs/"):
        written.update(each["Key"] for each in page.get("Versions", []) + page.get("DeleteMarkers", []))
    again = {key.split("/")[3] for key, number in written.items() if number > 1}
    assert again == {"hb", "probe"}
    assert {key.split("/")[3] for key in written} >= {"att", "claim", "coord", "fin", "gone", "manifest", "seal.json"}
    scene.store.delete_bucket(bucket)


def test_listings_of_before_are_hints_and_no_more(scene: Scene, proxy: FaultProxy) -> None:
    run = scene.begun(0, 10, 20, 30, 40)

    def rule(request: Request, random: Random) -> Action:
        return STALE if request.lists is not None and ".runs/" in request.lists and random.random() < 0.6 else PASSES

    finish(run, proxy, rule)
    scene.assert_whole(run)
    assert proxy.met["stale", "GET", "hb"] > 0


def test_a_run_whose_credentials_have_expired_says_so_and_goes_on_with_new_ones(
    scene: Scene, proxy: FaultProxy
) -> None:
    run = scene.begun(0, 10, 20, 30, 40)
    expired = False

    def rule(request: Request, random: Random) -> Action:
        nonlocal expired
        expired |= request.method == "PUT" and request.kind == "fin"
        return refuses(403, "ExpiredToken") if expired else PASSES

    proxy.rule = rule
    ended = run.run(BUOY_S3_ENDPOINT=proxy.endpoint)
    assert ended.returncode == 4, ended.stderr
    assert "ExpiredToken" in ended.stderr
    assert "the same command goes on" in ended.stderr
    finish(run, proxy, lambda _, __: PASSES)
    scene.assert_whole(run)


def test_a_run_pauses_when_the_source_refuses_and_goes_on_when_it_does_not(scene: Scene, proxy: FaultProxy) -> None:
    run = scene.begun(0, 10, 20, 30, 40)
    proxy.rule = lambda request, _: PASSES if request.kind else refuses(403, "AccessDenied")
    ended = run.run(BUOY_S3_ENDPOINT=proxy.endpoint)
    assert ended.returncode == 4, ended.stderr
    assert "paused: the source cannot be read any more" in ended.stderr
    proxy.rule = lambda _, __: PASSES
    resumed = run.say("resume", run.out, BUOY_S3_ENDPOINT=proxy.endpoint)
    assert resumed.returncode == 3, resumed.stderr
    scene.assert_whole(run)


def test_a_run_pauses_when_there_is_no_room_for_results_and_goes_on_when_there_is(
    scene: Scene, proxy: FaultProxy
) -> None:
    run = scene.begun(0, 10, 20, 30, 40)
    code = "XMinioAdminBucketQuotaExceeded"
    proxy.rule = lambda request, _: refuses(507, code) if request.kind == "att" else PASSES
    ended = run.run(BUOY_S3_ENDPOINT=proxy.endpoint)
    assert ended.returncode == 4, ended.stderr
    assert f"({code})" in ended.stderr
    assert run.ledger.names("fin/") == []
    proxy.rule = lambda _, __: PASSES
    resumed = run.say("resume", run.out, BUOY_S3_ENDPOINT=proxy.endpoint)
    assert resumed.returncode == 3, resumed.stderr
    scene.assert_whole(run)


def test_an_object_that_is_replaced_between_listing_and_reading_is_a_changed_one(
    scene: Scene, proxy: FaultProxy
) -> None:
    run = scene.begun(0, 10, 20, 30, 40)
    key = sorted(each.key for each in scene.store.walk(scene.bucket, "in/"))[25]
    was = scene.store.get(scene.bucket, key)

    def rule(request: Request, random: Random) -> Action:
        if request.key == key:
            scene.store.put(scene.bucket, key, png(picture_with_squares((3, 3))))
        return PASSES

    try:
        finish(run, proxy, rule)
    finally:
        scene.store.put(scene.bucket, key, was)
    assert faults_of_run(run, ROWS) == []
    assert run.report()["counts"] == {"changed": 1, "failed": 2, "ok": ROWS - 3}


def test_where_the_store_knows_no_conditions_the_coordinator_gives_the_work(scene: Scene, proxy: FaultProxy) -> None:
    proxy.rule = lambda _, __: FORGETS_CONDITIONS
    run = scene.run()
    assert run.run("--dry-run", BUOY_S3_ENDPOINT=proxy.endpoint).returncode == 0
    caps = run.ledger.read("caps.json")
    assert caps is not None
    assert not caps["create_only"]
    run.plan(*range(0, ROWS, 5), ROWS)
    for failpoint in ("giver.claim:2", "giver.fin:2"):
        killed = run.run(BUOY_S3_ENDPOINT=proxy.endpoint, BUOY_FAILPOINT=failpoint)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    finish(run, proxy, proxy.rule)
    scene.assert_whole(run)
    names = {each.key.partition("/")[0] for each in run.ledger.names("")}
    assert {"assign", "answer"} <= names
    assert "slot" not in names


@pytest.fixture
def toxic(scene: Scene) -> Iterator[Toxiproxy]:
    with toxiproxy(scene.server.port) as started:
        yield started


def test_cut_bodies_resets_and_delays_of_the_network_change_nothing(scene: Scene, toxic: Toxiproxy) -> None:
    run = scene.begun(0, 10, 20, 30, 40)
    toxic.add("latency", {"latency": 20, "jitter": 15}, share=0.5)
    toxic.add("limit_data", {"bytes": 700}, share=0.15)
    toxic.add("reset_peer", {"timeout": 30}, share=0.15)
    toxic.add("reset_peer", {"timeout": 5}, share=0.1, upstream=True)
    toxic.add("slicer", {"average_size": 64, "size_variation": 32, "delay": 100}, share=0.3)
    ended = run.run(BUOY_S3_ENDPOINT=toxic.endpoint)
    assert ended.returncode == 3, ended.stderr
    scene.assert_whole(run)


def test_a_store_that_is_silent_for_a_while_is_waited_for(scene: Scene, toxic: Toxiproxy) -> None:
    run = scene.begun(0, 10, 20, 30, 40)
    # Both workers stand still before they store their first attempt, so the silence comes in the middle of a run.
    held = {"BUOY_FAILPOINT": "pilot.attempt", "BUOY_FAILPOINT_SIGNAL": "STOP"}
    command = run.start(BUOY_S3_ENDPOINT=toxic.endpoint, **held)
    workers = until(lambda: stopped if len(stopped := list(_stopped(run))) == 2 else None)
    assert workers
    toxic.enable(False)
    for worker in workers:
        worker.resume()
    time.sleep(2.0)
    assert command.poll() is None
    toxic.enable(True)
    _, stderr = command.communicate(timeout=120)
    assert command.returncode == 3, stderr
    scene.assert_whole(run)
    assert run.report()["store_retries"] > 0
    run.kill_everything()  # whoever was started in place of another stands still too, for good


def _stopped(run: BatchRun) -> Iterator[psutil.Process]:
    """Each once: a worker is found by its own command and as a child of the coordinator."""
    for process in {each.pid: each for each in run.processes()}.values():
        if process.status() == psutil.STATUS_STOPPED:
            yield process


def test_a_body_that_ends_early_is_read_again(scene: Scene, proxy: FaultProxy) -> None:
    run = scene.begun(0, 20, 40)

    def rule(request: Request, random: Random) -> Action:
        return cut(random.randrange(100)) if request.method == "GET" and random.random() < 0.15 else PASSES

    finish(run, proxy, rule)
    scene.assert_whole(run)
    assert sum(number for (action, _, _), number in proxy.met.items() if action == "cut") > 10
