"""A worker that is told to stop leaves in time, whatever its store does."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from buoy.store import open_store
from support.batch import BatchRun
from support.minio import MinioServer
from support.tiny import make_model, picture_with_squares, png
from support.toxiproxy import Toxiproxy, toxiproxy

#: What `docker stop`, Kubernetes and OSCAR leave at the least is more.
LEAVE_S = 20.0
ROWS = 400


@pytest.fixture
def toxic(minio_server: MinioServer) -> Iterator[Toxiproxy]:
    with toxiproxy(minio_server.port) as toxic:
        yield toxic


@pytest.fixture
def run(minio_server: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchRun]:
    """Pictures in a bucket, cut into cells, and nobody who works on them."""
    for name, value in (
        ("ENDPOINT", minio_server.endpoint), ("ACCESS_KEY", minio_server.access_key),
        ("SECRET_KEY", minio_server.secret_key),
    ):  # fmt: skip
        monkeypatch.setenv(f"BUOY_S3_{name}", value)
    store = open_store(minio_server.endpoint, access_key=minio_server.access_key, secret_key=minio_server.secret_key)
    bucket = f"test-{secrets.token_hex(6)}"
    store.create_bucket(bucket)
    picture = png(picture_with_squares((1, 1)))
    for row in range(ROWS):
        store.put(bucket, f"in/{row:04d}.png", picture)
    run = BatchRun(make_model(tmp_path, slow=True), f"s3://{bucket}/in/", f"s3://{bucket}/out")
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, ROWS + 1, 40))
    yield run
    run.kill_everything()
    store.delete_bucket(bucket)
    store.close()


FAULTS: dict[str, Callable[[Toxiproxy], None]] = {
    "refuses": lambda toxic: toxic.enable(False),
    "says nothing": lambda toxic: toxic.add("timeout", {"timeout": 0}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_is_told_to_stop_leaves_though_its_store(fault: str, run: BatchRun, toxic: Toxiproxy) -> None:
    pilot = run.pilot(BUOY_S3_ENDPOINT=toxic.endpoint)
    run.wait_until("fin/")
    FAULTS[fault](toxic)
    pilot.send_signal(signal.SIGTERM)
    pilot.wait(LEAVE_S)
    assert not [process for process in run.processes() if process.status() != psutil.STATUS_ZOMBIE]
    toxic.enable(True)
    ended = run.run()
    assert ended.returncode == 0, ended.stderr
    assert run.report()["counts"] == {"ok": ROWS}
