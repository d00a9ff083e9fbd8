"""`buoy up` over a real MinIO: its own, and one of somebody else's."""

from __future__ import annotations

import os
import signal
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buoy.errors import MissingError, StoreError
from buoy.store.s3 import S3Store
from buoy.store.s3_events import subscribe
from support.gateway import COPY, Gateway, running, until, up
from support.minio import minio
from support.need import program

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    from oscar_python.client import Client


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tools = str(Path(program("minio")).parent)
    with running(tmp_path_factory.mktemp("up") / "data", "--store", "minio", env={"BUOY_TOOLS": tools}) as gateway:
        yield gateway


def store_of(gateway: Gateway) -> S3Store:
    with gateway.client() as http:
        provider = http.get("/system/config").json()["minio_provider"]
    return S3Store(provider["endpoint"], provider["access_key"], provider["secret_key"])


def say(gateway: Gateway) -> str:
    return gateway.log.read_text()[-3000:]


def test_an_object_put_with_oscar_python_becomes_a_result(gateway: Gateway, tmp_path: Path) -> None:
    gateway.create("copy")
    known = gateway.credentials
    options = {"cluster_id": "x", "endpoint": gateway.url, "ssl": False}
    client = Client({**options, "user": known["username"], "password": known["password"]})
    storage = client.create_storage_client("copy")
    (tmp_path / "a b+c.txt").write_bytes(b"hello")
    storage.upload_file("minio.default", str(tmp_path / "a b+c.txt"), "copy/input")
    (job,) = gateway.finished(1, "copy")
    assert (job["state"], job["key"]) == ("Succeeded", "input/a b+c.txt")
    assert store_of(gateway).get("copy", "output/a b+c.txt.out") == b"hello"


def test_the_event_path_is_proven_and_then_an_event_is_a_job_at_once(gateway: Gateway) -> None:
    gateway.create("quick", "true\n")
    until(lambda: "arrive" in gateway.log.read_text(), 30, lambda: say(gateway))
    store = store_of(gateway)
    until(lambda: _notified(store, "quick") == ["input/"], 30, lambda: say(gateway))
    store.put("quick", "input/x", b"1")
    (job,) = gateway.finished(1, "quick")
    assert job["created"] - store.stat("quick", "input/x").modified_s < 2.0  # listing alone comes once a minute
    assert "buoy-probe" not in store.buckets()


def _notified(store: S3Store, bucket: str) -> list[str]:
    found = store.client.get_bucket_notification_configuration(Bucket=bucket).get("QueueConfigurations", [])
    return sorted(rule["Value"] for one in found for rule in one["Filter"]["Key"]["FilterRules"])


def test_events_with_a_wrong_token_are_refused(gateway: Gateway) -> None:
    with gateway.client() as http:
        for token in ("", "Bearer wrong"):
            headers = {"Authorization": token} if token else {}
            answer = http.post("/events/minio", json={}, headers=headers)
            assert answer.status_code == 401


def test_objects_put_while_buoy_is_down_are_found_at_its_start(tmp_path: Path) -> None:
    with minio(tmp_path / "minio") as server:
        env = {"BUOY_S3_ACCESS_KEY": server.access_key, "BUOY_S3_SECRET_KEY": server.secret_key}
        store = S3Store(server.endpoint, server.access_key, server.secret_key)
        gateway = Gateway(tmp_path / "data", "--store", server.endpoint, env=env).start()
        gateway.create("copy")
        store.put("copy", "input/before", b"1")
        gateway.finished(1, "copy")
        assert "found by listing, every 2 s" in say(gateway)
        gateway.kill9()
        for number in range(30):
            store.put("copy", f"input/{number}", b"1")
        gateway.start()
        jobs = gateway.finished(31, "copy")
        gateway.stop()
        assert {job["state"] for job in jobs} == {"Succeeded"}
        store.close()


def test_an_outage_of_the_store_loses_nothing(tmp_path: Path) -> None:
    """The store dies while jobs run: they are tried again, and what comes after its return is seen."""
    with minio(tmp_path / "minio") as server:
        env = {"BUOY_S3_ACCESS_KEY": server.access_key, "BUOY_S3_SECRET_KEY": server.secret_key}
        store = S3Store(server.endpoint, server.access_key, server.secret_key)
        with running(tmp_path / "data", "--store", server.endpoint, env=env) as gateway:
            gateway.create(
                "copy", f"touch {tmp_path}/started\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.02; done\n{COPY}"
            )
            store.put("copy", "input/during", b"1")
            until((tmp_path / "started").exists)
            server.kill()
            (tmp_path / "go").touch()
            until(lambda: any("running, and reachable" in job["reason"] for job in gateway.jobs("copy")), 60)
            server.restart()
            store.put("copy", "input/after", b"2")
            jobs = gateway.finished(2, "copy", timeout_s=120)
            assert {job["key"]: job["state"] for job in jobs} == {
                "input/during": "Succeeded",
                "input/after": "Succeeded",
            }
        store.close()


def test_a_minio_of_its_own_that_dies_is_started_again(gateway: Gateway) -> None:
    gateway.create("again", "true\n")
    log = gateway.data / "logs" / "minio.log"
    assert log.exists()
    pid, _ = (gateway.data / "work" / "minio" / "pid").read_text().split()
    os.kill(int(pid), signal.SIGKILL)
    store = store_of(gateway)
    until(lambda: _put(store, "again", "input/x"), 60, lambda: say(gateway))
    (job,) = gateway.finished(1, "again", timeout_s=20)
    assert job["state"] == "Succeeded"


def _put(store: S3Store, bucket: str, key: str) -> Any:
    try:
        return store.put(bucket, key, b"1")
    except StoreError:
        time.sleep(0.2)
        return None


def test_an_endpoint_that_is_not_there_is_one_line_with_a_hint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    env = {"BUOY_S3_ACCESS_KEY": "some", "BUOY_S3_SECRET_KEY": "thing"}
    ended = up("--data", tmp_path / "data", "--store", f"http://127.0.0.1:{port}", env=env)
    assert ended.returncode == 1
    assert "running, and reachable from here?" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_subscribing_keeps_what_others_have_and_merges_overlaps(tmp_path: Path) -> None:
    arns = [f"arn:minio:sqs::{name}:webhook" for name in ("BUOY", "OTHER")]
    env = {
        f"MINIO_NOTIFY_WEBHOOK_{key}_{name}": value
        for name in ("BUOY", "OTHER")
        for key, value in (("ENABLE", "on"), ("ENDPOINT", "http://127.0.0.1:9"))
    }
    env |= {f"MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_{name}": str(tmp_path / name) for name in ("BUOY", "OTHER")}
    with minio(tmp_path / "minio", env) as server:
        store = S3Store(server.endpoint, server.access_key, server.secret_key)
        store.create_bucket("shared")
        other = {"Id": "mine", "QueueArn": arns[1], "Events": ["s3:ObjectRemoved:*"]}
        configuration = {"QueueConfigurations": [other]}
        store.client.put_bucket_notification_configuration(Bucket="shared", NotificationConfiguration=configuration)
        subscribe(store, "shared", arns[0], ["in/", "in/deep/", "also/"])
        found = store.client.get_bucket_notification_configuration(Bucket="shared")["QueueConfigurations"]
        assert sorted(one["QueueArn"] for one in found) == [arns[0], arns[0], arns[1]]
        prefixes = [
            rule["Value"] for one in found if one["QueueArn"] == arns[0] for rule in one["Filter"]["Key"]["FilterRules"]
        ]
        assert sorted(prefixes) == ["also/", "in/"]
        subscribe(store, "shared", arns[0], [])
        (left,) = store.client.get_bucket_notification_configuration(Bucket="shared")["QueueConfigurations"]
        assert left["QueueArn"] == arns[1]
        with pytest.raises(StoreError):
            subscribe(store, "shared", "arn:minio:sqs::NONE:webhook", ["x/"])
        with pytest.raises(MissingError):
            subscribe(store, "absent", arns[0], ["x/"])
        store.close()
