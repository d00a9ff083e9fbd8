"""`buoy batch --engine oscar` on a real local OSCAR over a real MinIO: killed, starved, the same table in the end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from batch.checker import faults_of_run
from buoy.batch.area import Area, open_area
from buoy.batch.control import Control
from buoy.batch.engines.oscar import Beats, OscarEngine
from buoy.batch.engines.oscar_api import Cluster, OscarApi, Refused
from buoy.batch.naming import place_of
from buoy.batch.pointer import Pointer
from buoy.errors import JobError
from buoy.fdl import SCRIPT, Site, render
from buoy.manifest import Manifest, Needs
from support.batch import BatchRun, make_source
from support.gateway import Gateway, running, until
from support.need import program
from support.supervisor import python, run_supervisor
from support.tiny import make_model

#: Objects of the long story; 20,000 by hand.
OBJECTS = int(os.environ.get("BUOY_TEST_BATCH_OBJECTS") or 8000)
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"), needs={"cpu": 1.0, "memory": "1Gi"})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Gateway]:
    tools = str(Path(program("minio")).parent)
    data = tmp_path_factory.mktemp("up") / "data"
    with running(data, "--store", "minio", env={"BUOY_TOOLS": tools}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def reach(gateway: Gateway) -> dict[str, str]:
    """How the store and the cluster are reached."""
    with gateway.client() as http:
        provider = http.get("/system/config").json()["minio_provider"]
    known = gateway.credentials
    return {
        "BUOY_S3_ENDPOINT": provider["endpoint"],
        "BUOY_S3_ACCESS_KEY": provider["access_key"],
        "BUOY_S3_SECRET_KEY": provider["secret_key"],
        "BUOY_URL": gateway.url,
        "BUOY_USER": known["username"],
        "BUOY_PASSWORD": known["password"],
    }


@pytest.fixture
def api_of(reach: dict[str, str]) -> Iterator[Callable[[str], OscarApi]]:
    """Makes the API of a service, closed in the end."""
    with ExitStack() as stack:
        cluster = Cluster(reach["BUOY_URL"], reach["BUOY_USER"], reach["BUOY_PASSWORD"])
        yield lambda service: stack.enter_context(closing(OscarApi(cluster, service)))


@pytest.fixture
def bucket(reach: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Area:
    for name, value in reach.items():
        monkeypatch.setenv(name, value)
    name = f"sea-{next(_NUMBERS)}"
    store = open_area(f"s3://{name}/").store
    store.create_bucket(name)
    return Area(store, name)


@pytest.fixture
def service(gateway: Gateway, model: Path, reach: dict[str, str]) -> str:
    return create(gateway, model, reach, f"tiny-{next(_NUMBERS)}")


def create(gateway: Gateway, model: Path, reach: dict[str, str], name: str, **fields: Any) -> str:
    """A service as batch.yaml makes it, with the keys in its secrets."""
    secrets = {key: value for key, value in reach.items() if key.startswith("BUOY_S3_")}
    environment = {"variables": {"BUOY_MODEL": str(model)}, "secrets": secrets}
    options = {
        "cpu": "1.0",
        "memory": "1Gi",
        "input": [],
        "output": [],
        "file_stage_in": True,
        "script": SCRIPT,
        **fields,
    }
    gateway.create(name, environment=environment, **options)
    return name


def fill(bucket: Area, folder: Path, number: int) -> None:
    """Small pictures in a bucket, one of a hundred broken."""
    source = make_source(folder, min(number, 2000))
    paths = sorted(source.rglob("*.png"))
    contents = [(str(path.relative_to(source)), path.read_bytes()) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        copies = ((f"in/{count // len(contents)}/{key}", data) for count, (key, data) in _round(contents, number))
        list(pool.map(lambda each: bucket.put(*each), copies))


def _round(contents: list[tuple[str, bytes]], number: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
    return zip(range(number), itertools.cycle(contents))


def a_run(model: Path, bucket: Area, out: str, *options: str) -> BatchRun:
    return BatchRun(model, f"s3://{bucket.bucket}/in/", f"s3://{bucket.bucket}/{out}", options=options)


def on_oscar(model: Path, bucket: Area, service: str, out: str = "oscar") -> BatchRun:
    return a_run(model, bucket, out, "--engine", "oscar", "--service", service, "--workers", "2")


def pilots(run: BatchRun) -> list[psutil.Process]:
    """The processes that have become pilots; not what they have started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "buoy.batch.work" in words and run.out in words:
            found.append(process)
    return found


def kill_one(run: BatchRun) -> None:
    def found() -> bool:
        for process in pilots(run)[:1]:
            for each in [*process.children(recursive=True), process]:
                each.kill()
            return True
        return False

    until(found, 60.0, lambda: "no pilot runs")


def kill_thrice(run: BatchRun, cells: int) -> int:
    """The coordinator, a pilot, and everything, each while work goes on; gives how many cells were done by then."""
    assert run.run("--dry-run").returncode == 0
    rows = OBJECTS
    run.plan(*range(0, rows, max(1, rows // cells)), rows)
    command = run.start()
    run.wait_until("fin/", 1)
    command.kill()
    command.communicate()
    again = run.start()
    kill_one(run)
    run.wait_until("fin/", 2, 120.0)
    run.kill_everything()
    again.kill()
    again.communicate()
    return len(run.ledger.names("fin/"))


def test_twenty_thousand_objects_come_through_three_kills_on_both_engines_with_the_same_bytes(
    model: Path, gateway: Gateway, bucket: Area, service: str, tmp_path: Path
) -> None:
    fill(bucket, tmp_path / "source", OBJECTS)
    local, oscar = a_run(model, bucket, "local", "--workers", "2"), on_oscar(model, bucket, service)
    for run in (local, oscar):
        began_s = time.monotonic()
        done = kill_thrice(run, 64)
        assert 2 <= done < 64
        command = run.start()
        told = command.communicate(timeout=3000)
        assert command.returncode == 3, told[1]
        assert faults_of_run(run, OBJECTS) == []
        failed = len(range(99, OBJECTS, 100))
        assert run.report()["counts"] == {"failed": failed, "ok": OBJECTS - failed}
        print(f"{run.out}: {OBJECTS} objects, three kills: {time.monotonic() - began_s:.1f} s")
    assert local.tables() == oscar.tables()
    names = [job["name"] for job in gateway.jobs(service)]
    beats = [oscar.ledger.read(each.key) for each in oscar.ledger.names("hb/")]
    assert {beat["job"] for beat in beats if beat} <= set(names)
    assert beats


def test_a_paused_run_goes_on_with_the_engine_that_it_had(
    model: Path, gateway: Gateway, bucket: Area, service: str, tmp_path: Path
) -> None:
    number = 3000  # more than two workers do before they look at the order again
    fill(bucket, tmp_path / "source", number)
    run = on_oscar(model, bucket, service)
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, number, 50), number)
    command = run.start()
    run.wait_until("claim/")
    Control(run.ledger).give("paused", by="the test")
    told = command.communicate(timeout=120)
    assert command.returncode == 4, told[1]
    until(lambda: not pilots(run))
    before = len(gateway.jobs(service))
    assert before >= 1
    resumed = run.say("resume", run.out)
    assert resumed.returncode == 3, resumed.stderr
    assert len(gateway.jobs(service)) > before
    assert faults_of_run(run, number) == []
    assert run.report()["wasted_objects"] == 0


def test_nothing_fits_is_said_and_waited_for(
    model: Path, gateway: Gateway, bucket: Area, reach: dict[str, str], service: str, tmp_path: Path
) -> None:
    fill(bucket, tmp_path / "source", 30)
    create(gateway, model, reach, "hog", cpu="64", memory="64Mi", script="sleep 600\n")
    with gateway.client() as http:
        token = http.get("/system/services/hog").json()["token"]
        job = http.post("/job/hog", content=b"{}", headers={"Authorization": f"Bearer {token}"}).json()["job"]
        until(lambda: gateway.counts("hog")["Running"] == 1)
        command = on_oscar(model, bucket, service).start("--json")
        assert command.stdout is not None
        for line in command.stdout:
            if "room for 0 of" in line:
                break
        assert "cpu" in line, command.communicate()
        assert gateway.jobs(service) == []
        assert http.delete(f"/system/logs/hog/{job}").status_code == 204
    command.communicate(timeout=120)
    assert command.returncode == 0


def test_a_pilot_that_cannot_reach_its_run_leaves_without_a_claim(model: Path, bucket: Area, tmp_path: Path) -> None:
    fill(bucket, tmp_path / "source", 10)
    run = a_run(model, bucket, "out")
    assert run.run("--dry-run").returncode == 0
    before = run.objects()
    event = Pointer(run.out, run.name, "job-1", 1500.0, 1.0).encode()
    env = run.environ(EVENT=event, BUOY_S3_SECRET_KEY="wrong")
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("buoy")), "function"], env=env, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "buoy batch:" in ended.stderr
    assert run.objects() == before


def test_an_event_that_points_to_a_run_makes_a_pilot_that_stops_within_seconds(
    model: Path, bucket: Area, tmp_path: Path
) -> None:
    fill(bucket, tmp_path / "source", 1500)
    run = a_run(model, bucket, "out")
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 1500)
    event = Pointer(run.out, run.name, "job-2", 1500.0, 1.0).encode()
    pilot = subprocess.Popen(
        [str(Path(sys.executable).with_name("buoy")), "function"], env=run.environ(EVENT=event, JOB_UUID="job-2")
    )
    run.wait_until("claim/")
    pilot.send_signal(signal.SIGTERM)
    assert pilot.wait(20) == 0
    (beat,) = run.ledger.names("hb/")
    record = run.ledger.read(beat.key)
    assert record is not None
    assert (record["job"], record["wasted"]) == ("job-2", 0)
    assert run.run().returncode == 3
    assert faults_of_run(run, 1500) == []


def test_the_supervisor_of_oscar_lets_a_pointer_through(
    model: Path, bucket: Area, reach: dict[str, str], tmp_path: Path
) -> None:
    python()
    fill(bucket, tmp_path / "source", 100)
    run = a_run(model, bucket, "out")
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 50, 100)
    event = Pointer(run.out, run.name, "job-3", 1500.0, 1.0).encode()
    (cluster,) = render(Manifest.load(model), Site(), "batch")["functions"]["oscar"]
    (service,) = cluster.values()
    service = {**service, "environment": {"Variables": {"BUOY_MODEL": str(model)}}, "input": [], "output": []}
    store = {name: value for name, value in reach.items() if name.startswith("BUOY_S3_")}
    # as OSCAR does: the event is in the environment of the job, and the supervisor gets what a shell makes of it
    spoken = subprocess.run(["/bin/sh", "-c", "echo $EVENT"], env={"EVENT": event}, capture_output=True, text=True)
    ended = run_supervisor(spoken.stdout, service, SCRIPT, tmp_path, {**store, "EVENT": event, "JOB_UUID": "job-3"})
    assert ended.returncode == 0, ended.stderr
    assert len(run.ledger.names("fin/")) == 2, ended.stderr + ended.stdout
    assert run.run().returncode == 3
    assert faults_of_run(run, 100) == []


def test_jobs_are_known_by_their_names_deleted_one_by_one_and_not_started_twice(
    gateway: Gateway, reach: dict[str, str], model: Path, api_of: Callable[[str], OscarApi]
) -> None:
    name = create(gateway, model, reach, "sleepers", cpu="0.1", memory="16Mi", script="sleep 600\n")
    api = api_of(name)
    needs = Needs(cpu=0.1, memory="16Mi")

    def engine(run: str) -> OscarEngine:
        return OscarEngine(api, Pointer("s3://b/out", run, ""), needs, lambda: Beats({}, ()), fresh_s=0.0)

    ours, others = engine("one"), engine("two")
    ours.submit(3)
    others.submit(1)
    assert (ours.alive(), others.alive()) == (3, 1)
    assert (engine("one").alive(), engine("three").alive()) == (3, 0)
    api.submit("x", "sleepers-twice")
    api.submit("x", "sleepers-twice")
    assert [job for job, _ in api.jobs()].count("sleepers-twice") == 1
    engine("one").cancel()
    assert (ours.alive(), others.alive(), engine("one").alive()) == (0, 1, 0)
    others.cancel()
    api.remove("sleepers-twice")
    assert api.quota() == {}


def test_the_cluster_is_asked_only_for_those_whose_heartbeats_stand_still(
    gateway: Gateway, reach: dict[str, str], model: Path, api_of: Callable[[str], OscarApi]
) -> None:
    name = create(gateway, model, reach, "quiet", cpu="0.1", memory="16Mi", script="sleep 600\n")
    api = api_of(name)
    asked: list[int] = []
    etags: dict[str, str] = {}
    gone: list[str] = []
    pointer, needs = Pointer("s3://b/out", "run", ""), Needs(cpu=0.1, memory="16Mi")
    engine = OscarEngine(api, pointer, needs, lambda: Beats(dict(etags), list(gone)), fresh_s=0.0)
    engine.submit(2)
    hosts = [place_of(job) for job, _ in api.jobs()]
    listing = api.jobs
    api.jobs = lambda: (asked.append(1), listing())[1]  # type: ignore[method-assign]
    for beat in range(5):
        etags.update({f"{host}.1.2.3": f"etag {beat}" for host in hosts})
        assert engine.alive() == 2
    assert len(asked) == 1  # a coordinator that begins looks once
    assert engine.alive() == 2
    assert len(asked) == 2  # nothing has moved
    gone.append(f"{hosts[0]}.1.2.3")  # its budget was spent, say: the next one may come at once
    etags[f"{hosts[1]}.1.2.3"] = "another"
    assert engine.alive() == 1
    assert len(asked) == 2
    assert engine.dead([f"{hosts[0]}.1.2.3", f"{hosts[1]}.1.2.3", "host.1.2.3"]) == [f"{hosts[0]}.1.2.3"]
    for job, _ in listing():  # the one that is taken for gone would keep its place for ten minutes
        api.remove(job)


def test_workers_that_never_begin_are_not_started_for_ever(
    gateway: Gateway, reach: dict[str, str], model: Path, api_of: Callable[[str], OscarApi]
) -> None:
    name = create(gateway, model, reach, "stillborn", cpu="0.1", memory="16Mi", script="true\n")
    api = api_of(name)
    needs = Needs(cpu=0.1, memory="16Mi")
    engine = OscarEngine(api, Pointer("s3://b/out", "run", ""), needs, lambda: Beats({}, ()), fresh_s=0.1)
    engine.submit(4)
    until(lambda: engine.alive() == 0)
    engine._fresh_s = 60.0
    with pytest.raises(JobError, match="4 workers ended before they had begun") as told:
        engine.submit(4)
    assert told.value.retry
    assert len(gateway.jobs(name)) == 4


def test_a_service_that_is_not_there_is_named(api_of: Callable[[str], OscarApi]) -> None:
    api = api_of("nowhere")
    with pytest.raises(Refused, match="nowhere") as told:
        api.submit("x", "nowhere-1")
    assert not told.value.retry
    assert "batch.yaml" in told.value.hint
