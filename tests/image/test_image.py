"""Images by `functions/Containerfile`: built by `scripts/image` without a registry, and run as OSCAR would run them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from buoy.batch.area import open_area
from buoy.batch.engines.kube_job import PilotJob
from buoy.batch.naming import PLACE, place_of
from buoy.fdl import SCRIPT
from buoy.manifest import Needs
from buoy.model import Model
from buoy.results import encode_record
from support.batch import BatchRun
from support.gateway import until
from support.minio import MinioServer
from support.need import CHECKOUT, program
from support.tiny import make_model

pytestmark = pytest.mark.image

SAMPLE = CHECKOUT / "functions" / "obsea-fish" / "sample" / "scene_17_03.jpg"
BASE_PATH = "/system/services/obsea-fish-live/exposed"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def build_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `scripts/image` needs on a machine without a daemon and without a registry."""
    for tool in ("podman", "buildah", "debootstrap", "runc"):
        program(tool)
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    made = subprocess.run([CHECKOUT / "scripts" / "base-image"], stdout=subprocess.PIPE, text=True, check=True)
    base, python = made.stdout.split()
    # the host's limits are more than a container may be given here
    settings = tmp_path_factory.mktemp("podman") / "containers.conf"
    settings.write_text("[containers]\ndefault_ulimits=[]\n")
    return {
        **os.environ, "BASE": base, "PYTHON": python, "ENGINE": "buildah", "CONTAINERS_CONF": str(settings),
        "ENGINE_OPTIONS": "--isolation chroot --network host",
    }  # fmt: skip


def build(env: dict[str, str], model: str, target: str, **more: str) -> subprocess.CompletedProcess[str]:
    tag = f"localhost/buoy-test-{model}:{target}"
    command = [str(CHECKOUT / "scripts" / "image"), model, target]
    return subprocess.run(command, env={**env, "TAG": tag, **more}, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def exposed(build_env: dict[str, str]) -> str:
    built = build(build_env, "obsea-fish", "exposed")
    assert built.returncode == 0, built.stderr[-3000:]
    return built.stdout.strip()


@pytest.fixture(scope="module")
def function(build_env: dict[str, str]) -> str:
    built = build(build_env, "obsea-fish", "function")
    assert built.returncode == 0, built.stderr[-3000:]
    return built.stdout.strip()


def podman(env: dict[str, str], *arguments: str) -> str:
    command = ["podman", "--runtime", "runc", *arguments]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout


@contextmanager
def running(env: dict[str, str], image: str, variables: dict[str, str], *options: str) -> Iterator[str]:
    """A container for the time of the block, on the network of this machine, its root file system read-only."""
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    limits = ["--ulimit", "host", "--read-only", "--cap-drop", "all"]
    name = podman(env, "run", "--detach", "--network", "host", *limits, *given, *options, image).strip()
    try:
        yield name
    finally:
        podman(env, "rm", "--force", "--time", "5", name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def outside_of_run(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "run"}


def expected(name: str) -> dict[str, Any]:
    record = json.loads(encode_record(Model.load("obsea-fish").predict(SAMPLE, name=name)))
    return outside_of_run(record)


def test_an_exposed_image_serves_as_oscar_starts_it(build_env: dict[str, str], exposed: str) -> None:
    port = free_port()
    given = {
        "OSCAR_SERVICE_NAME": "obsea-fish-live", "OSCAR_SERVICE_TOKEN": TOKEN, "OSCAR_SERVICE_BASE_PATH": BASE_PATH,
        "BUOY_PORT": str(port),
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}{BASE_PATH}"

    def ready() -> bool:
        try:
            return httpx2.get(f"{url}/v2/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    with running(build_env, exposed, given) as name:
        until(ready, 60, lambda: podman(build_env, "logs", name))
        answer = httpx2.post(
            f"{url}/predict?name=x", content=SAMPLE.read_bytes(), headers={"Content-Type": "image/jpeg"},
            auth=("obsea-fish-live", TOKEN), timeout=60,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        assert outside_of_run(answer.json()) == expected("x")
        assert podman(build_env, "exec", name, "id", "-u").strip() == "10001"
        podman(build_env, "exec", name, "buoy-ready")  # the health check of the image
        podman(build_env, "kill", "--signal", str(int(signal.SIGTERM)), name)
        assert podman(build_env, "wait", name).strip() == "0"
    about = json.loads(podman(build_env, "image", "inspect", exposed))[0]
    assert about["Healthcheck"]["Test"] == ["CMD", "buoy-ready"]


def test_it_refuses_to_be_open_to_everybody(build_env: dict[str, str], exposed: str) -> None:
    with running(build_env, exposed, {}) as name:
        assert podman(build_env, "wait", name).strip() == "2"
        command = ["podman", "logs", name]
        told = subprocess.run(command, env=build_env, capture_output=True, text=True).stderr
        assert "without a token is refused" in told


def test_a_function_image_answers_an_event_as_oscar_starts_it(
    build_env: dict[str, str], function: str, tmp_path: Path
) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    out.mkdir()
    (given / "fish.jpg").write_bytes(SAMPLE.read_bytes())
    (given / "script.sh").write_text(SCRIPT)
    for folder in (tmp_path, given, out):
        folder.chmod(0o777)
    for folder in tmp_path.parents:  # pytest keeps them for its user alone; the container has another one
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    variables = {"INPUT_FILE_PATH": "/data/in/fish.jpg", "TMP_OUTPUT_DIR": "/data/out"}
    values = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    podman(
        build_env, "run", "--rm", "--network", "none", "--ulimit", "host", "--read-only", "--cap-drop", "all",
        "--volume", f"{tmp_path}:/data", *values, function, "/bin/sh", "/data/in/script.sh",
    )  # fmt: skip
    record = json.loads((out / "fish.jpg.json").read_text())
    assert outside_of_run(record) == expected("fish.jpg")


def test_a_batch_image_works_on_a_run_as_a_pod_would(
    build_env: dict[str, str], minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(build_env, "obsea-fish", "batch")
    assert built.returncode == 0, built.stderr[-3000:]
    store = {
        "BUOY_S3_ENDPOINT": minio_server.endpoint,
        "BUOY_S3_ACCESS_KEY": minio_server.access_key,
        "BUOY_S3_SECRET_KEY": minio_server.secret_key,
    }
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    archive = open_area("s3://image-batch/")
    archive.store.create_bucket("image-batch")
    archive.put("in/fish.jpg", SAMPLE.read_bytes())
    # pinned by a path that the image does not have
    run = BatchRun(CHECKOUT / "functions" / "obsea-fish", "s3://image-batch/in/", "s3://image-batch/out")
    assert run.run("--dry-run").returncode == 0
    run.plan(0, 1)
    job = PilotJob(run.out, run.name, built.stdout.strip(), Needs(), 600.0, "buoy-batch")
    (container,) = job.document(1, 1)["spec"]["template"]["spec"]["containers"]
    pod = "0a1b2c3d-0000-4000-8000-00000000000f"
    values = [part for name, value in {**store, PLACE: pod}.items()
              for part in ("--env", f"{name}={value}")]  # fmt: skip
    podman(
        build_env, "run", "--rm", "--network", "host", "--ulimit", "host", "--read-only", "--cap-drop", "all",
        *values, container["image"], *container["command"],
    )  # fmt: skip
    (beat,) = run.ledger.names("hb/")
    assert beat.key.startswith(f"hb/{place_of(pod)}.")
    (fin,) = run.ledger.names("fin/")
    assert run.ledger.read(fin.key)["parts"][0]["attempt"]["counts"] == {"ok": 1}


def test_models_share_everything_but_themselves(build_env: dict[str, str], function: str, tmp_path: Path) -> None:
    make_model(tmp_path, "tiny")
    built = build(build_env, "tiny", "function", BUOY_FUNCTIONS=str(tmp_path))
    assert built.returncode == 0, built.stderr[-3000:]
    layers = [
        json.loads(podman(build_env, "image", "inspect", image))[0]["RootFS"]["Layers"]
        for image in (function, built.stdout.strip())
    ]
    same = [one == other for one, other in zip(*layers, strict=True)]
    first = same.index(False)
    assert first >= 6  # base, search paths, dependencies and package with their bytecode, commands
    history = json.loads(podman(build_env, "history", "--format", "json", built.stdout.strip()))
    own = [step["size"] for step in history if step["size"]][: len(same) - first]
    assert sum(own) < 1 << 20


def test_altered_weights_are_found_by_the_build(build_env: dict[str, str], tmp_path: Path) -> None:
    home = make_model(tmp_path, "altered")
    with (home / "tiny.onnx").open("ab") as weights:
        weights.write(b"\0")
    built = build(build_env, "altered", "function", BUOY_FUNCTIONS=str(tmp_path))
    assert built.returncode != 0
    assert "the sha256 is" in built.stderr + built.stdout
