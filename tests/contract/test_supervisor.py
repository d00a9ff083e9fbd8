"""The function under OSCAR's own supervisor: an event of a real MinIO in, objects out."""

from __future__ import annotations

import base64
import io
import json
import queue
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import cv2
import pytest

from buoy import fdl
from buoy.fdl import Site, render
from buoy.manifest import Manifest
from support.minio import MinioServer, minio
from support.supervisor import python, run_supervisor, with_storage
from support.tiny import make_model, picture_with_squares

PICTURE = cv2.imencode(".png", picture_with_squares((0, 0), (1, 2)))[1].tobytes()


@pytest.fixture(scope="module")
def events() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Where MinIO can send its events, and what has come."""
    arrived: queue.Queue[dict[str, Any]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.end_headers()
            if body:  # MinIO first asks, with nothing, whether anybody is there
                arrived.put(json.loads(body))

        do_HEAD = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", arrived
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(
    events: tuple[str, queue.Queue[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MinioServer]:
    python()
    env = {"MINIO_NOTIFY_WEBHOOK_ENABLE_TESTS": "on", "MINIO_NOTIFY_WEBHOOK_ENDPOINT_TESTS": events[0]}
    with minio(tmp_path_factory.mktemp("minio"), env) as server:
        yield server


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    make_model(folder)
    return folder


@pytest.fixture(scope="module")
def service(functions: Path, server: MinioServer) -> dict[str, Any]:
    """The definition from our own FDL, as OSCAR hands it to the supervisor."""
    (cluster,) = render(Manifest.load(functions / "tiny"), Site())["functions"]["oscar"]
    return with_storage(cluster[Site().cluster_id], server)


@pytest.fixture(scope="module")
def s3(server: MinioServer) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.create_bucket(Bucket="tiny")
    client.put_bucket_notification_configuration(
        Bucket="tiny",
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": "arn:minio:sqs::TESTS:webhook",
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "input/"}]}},
                }
            ]
        },
    )
    yield client
    client.close()


#: Key and content of an object, and more environment: the supervisor's exit code, and all results by key.
Deliver = Callable[..., tuple[int, dict[str, bytes]]]


@pytest.fixture
def deliver(
    s3: Any, service: dict[str, Any], functions: Path, events: tuple[str, queue.Queue[dict[str, Any]]], tmp_path: Path
) -> Deliver:
    def deliver_(key: str, content: bytes, **env: str) -> tuple[int, dict[str, bytes]]:
        s3.put_object(Bucket="tiny", Key=key, Body=content)
        event = events[1].get(timeout=30)
        ended = run_supervisor(event, service, fdl.SCRIPT, tmp_path, {"BUOY_FUNCTIONS": str(functions), **env})
        assert "Traceback" not in ended.stderr + ended.stdout
        return ended.returncode, results(s3)

    return deliver_


def results(s3: Any) -> dict[str, bytes]:
    """What is in the output path, which is emptied."""
    found = {}
    for entry in s3.list_objects_v2(Bucket="tiny", Prefix="output/").get("Contents", []):
        found[entry["Key"]] = s3.get_object(Bucket="tiny", Key=entry["Key"])["Body"].read()
        s3.delete_object(Bucket="tiny", Key=entry["Key"])
    return found


def test_a_picture_becomes_a_result(deliver: Deliver) -> None:
    code, found = deliver("input/a.png", PICTURE)
    assert (code, list(found)) == (0, ["output/a.png.json"])
    result = json.loads(found["output/a.png.json"])
    assert result["model"]["name"] == "tiny"
    assert [each["box"] for each in result["detections"]] == [[0, 0, 16, 16], [32, 16, 48, 32]]


@pytest.mark.parametrize("name", ["a b.png", "a+b.png", "100%.png", "a%20b.png", "ñandú 写真.png", "a&b=c;d.png"])
def test_names_of_every_kind_come_through(deliver: Deliver, name: str) -> None:
    code, found = deliver(f"input/{name}", PICTURE)
    assert (code, list(found)) == (0, [f"output/{name}.json"])
    assert json.loads(found[f"output/{name}.json"])["input"]["name"] == name


def test_sub_folders_are_kept_so_that_same_names_do_not_collide(deliver: Deliver) -> None:
    assert list(deliver("input/2011/05/a.png", PICTURE)[1]) == ["output/2011/05/a.png.json"]
    assert list(deliver("input/2012/05/a.png", PICTURE)[1]) == ["output/2012/05/a.png.json"]


def test_a_zip_becomes_a_folder_of_results(deliver: Deliver) -> None:
    batch = io.BytesIO()
    with zipfile.ZipFile(batch, "w") as entries:
        for name, content in {"a.png": PICTURE, "dir/b c.png": PICTURE, "bad.jpg": b"text"}.items():
            entries.writestr(name, content)
    code, found = deliver("input/2011/batch.zip", batch.getvalue())
    assert code == 0
    assert list(found) == [
        "output/2011/batch.zip/a.png.json",
        "output/2011/batch.zip/bad.jpg.error.json",
        "output/2011/batch.zip/dir/b c.png.json",
    ]


@pytest.mark.parametrize("content", [b"", b"only text", PICTURE[:100]])
def test_a_bad_picture_leaves_its_error_record(deliver: Deliver, content: bytes) -> None:
    code, found = deliver("input/bad.png", content)
    # The supervisor of OSCAR reports success for a script that fails: the record is what tells.
    assert (code, list(found)) == (0, ["output/bad.png.error.json"])
    error = json.loads(found["output/bad.png.error.json"])["error"]
    assert error["class"] == "InputError"
    assert error["message"]
    assert error["hint"]


def test_a_model_that_is_not_there_leaves_its_error_record(deliver: Deliver, tmp_path: Path) -> None:
    code, found = deliver("input/a.png", PICTURE, BUOY_FUNCTIONS=str(tmp_path))
    assert (code, list(found)) == (0, ["output/a.png.error.json"])
    assert "there is no model 'tiny'" in json.loads(found["output/a.png.error.json"])["error"]["message"]


def test_asked_for_formats_are_uploaded(deliver: Deliver) -> None:
    _, found = deliver("input/a.png", PICTURE, BUOY_OUTPUTS="csv,obsea,drawn")
    assert list(found) == ["output/a.png.csv", "output/a.png.drawn.jpg", "output/a.png.obsea.json"]


def test_a_synchronous_call_answers_with_the_result_and_nothing_else(
    s3: Any, service: dict[str, Any], functions: Path, tmp_path: Path
) -> None:
    body = base64.b64encode(PICTURE).decode()
    ended = run_supervisor(body, service, fdl.SCRIPT, tmp_path, {"BUOY_FUNCTIONS": str(functions)})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(json.loads(base64.b64decode(ended.stdout))["detections"]) == 2
    assert len(results(s3)) == 1
