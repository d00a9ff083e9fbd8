"""Resident workers: the same results as the script gives, faster, and no picture's crash hurts another."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from buoy.fdl import SCRIPT
from support.gateway import Gateway, running, until
from support.tiny import make_model, picture_with_squares, png

PICTURE = png(picture_with_squares((0, 1), (2, 2)))
#: The same script, which no resident worker answers for: it is not ours to the letter.
AS_SCRIPT = f"{SCRIPT}\n# run as a script\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("up") / "data", "--idle", "2", "--job-timeout", "5") as gateway:
        yield gateway


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


def create(gateway: Gateway, name: str, model: Path | str, script: str = SCRIPT, **fields: Any) -> None:
    variables = {"BUOY_MODEL": str(model), "BUOY_OUTPUTS": "json,drawn", "BUOY_INPUT": f"{name}/input"}
    gateway.create(name, script, environment={"Variables": variables}, **{"cpu": "1", "memory": "1Gi", **fields})


def outputs(gateway: Gateway, name: str) -> dict[str, bytes]:
    top = gateway.data / "buckets" / name / "output"
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def worker_of(gateway: Gateway, name: str) -> psutil.Process:
    """The process that answers for the service."""
    note = gateway.data / "work" / f"worker-{name}" / "pid"
    return psutil.Process(int(note.read_text().split()[0]))


def test_a_worker_gives_exactly_what_the_script_gives(gateway: Gateway, model: Path, name: str) -> None:
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/1.png", PICTURE)
        archive.writestr("broken.png", PICTURE[:50])
    inputs = {
        "good.png": PICTURE,
        "2011/05/deep er.png": PICTURE,
        "empty.png": b"",
        "text.jpg": b"not a picture",
        "batch.zip": packed.getvalue(),
        "broken.zip": b"PK\x03\x04broken",
    }
    found = {}
    for way, script in (("warm", SCRIPT.replace("\n", "\r\n")), ("script", AS_SCRIPT)):
        service = f"{name}-{way}"
        create(gateway, service, model, script)
        for key, content in inputs.items():
            gateway.drop(service, f"input/{key}", content)
        jobs = gateway.finished(len(inputs), service, timeout_s=120)
        ends = {job["key"]: (job["state"], job["exit_code"], job["inputs_failed"], job["reason"]) for job in jobs}
        found[way] = ends, {key: without_run(content) for key, content in outputs(gateway, service).items()}
        logs = {job["key"]: log_of(gateway, job) for job in jobs}
        assert all("tiny 1.0" in log for log in logs.values())
    assert found["warm"] == found["script"]
    ends, files = found["warm"]
    assert ends["input/good.png"] == ("Succeeded", 0, 0, "")
    assert ends["input/empty.png"][:3] == ("Failed", 3, 1)
    assert ends["input/batch.zip"][:3] == ("Failed", 3, 1)
    assert {"good.png.json", "good.png.drawn.jpg", "2011/05/deep er.png.json", "empty.png.error.json"} <= set(files)
    assert {"batch.zip/a/1.png.json", "batch.zip/broken.png.error.json", "broken.zip.error.json"} <= set(files)


def without_run(content: bytes) -> object:
    try:
        record = json.loads(content)
    except ValueError:
        return content
    record.pop("run", None)
    return record


def log_of(gateway: Gateway, job: dict[str, Any]) -> str:
    with gateway.client() as http:
        return http.get(f"/page/jobs/{job['name']}/log").text


def test_one_process_answers_many_jobs_and_leaves_when_idle(gateway: Gateway, model: Path, name: str) -> None:
    create(gateway, name, model)
    for number in range(40):
        gateway.drop(name, f"input/{number}.png", PICTURE)
    until((gateway.data / "work" / f"worker-{name}" / "pid").exists)
    first = worker_of(gateway, name)
    jobs = gateway.finished(40, name)
    assert {job["state"] for job in jobs} == {"Succeeded"}
    until(lambda: not first.is_running(), 20)
    gateway.drop(name, "input/late.png", PICTURE)
    assert gateway.finished(41, name)[0]["state"] == "Succeeded"
    assert worker_of(gateway, name).pid != first.pid


def test_run_is_answered_by_the_worker_too(gateway: Gateway, model: Path, name: str) -> None:
    import base64

    create(gateway, name, model)
    variables = {"BUOY_MODEL": str(model), "BUOY_OUTPUTS": "json"}
    with gateway.client() as http:
        definition = http.get(f"/system/services/{name}").json()
        definition["environment"]["variables"] = variables
        assert http.put("/system/services", json=definition).status_code == 204
        answer = http.post(f"/run/{name}", content=base64.b64encode(PICTURE))
        result = json.loads(base64.b64decode(answer.content))
        assert len(result["detections"]) == 2
        bad = http.post(f"/run/{name}", content=b"")
    assert bad.status_code == 500
    assert bad.text.startswith("exit status 3\n")


def misbehaving(tmp_path: Path) -> str:
    """A folder for PYTHONPATH with which a worker dies, hangs or eats memory over pictures that say so at their end."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'buoy.worker' in ' '.join(getattr(sys, 'orig_argv', [])):\n"
        "    import buoy.function\n"
        "    real = buoy.function.attempt\n"
        "    def attempt(engine, event, setup, say):\n"
        "        if b'crash' in event.path.read_bytes()[-100:]:\n"
        "            import time; time.sleep(0.2)\n"
        # the signal goes to the main thread, which under load wakes a moment later: this one must not finish meanwhile
        "            os.kill(os.getpid(), signal.SIGSEGV); time.sleep(60)\n"
        "        if b'hang' in event.path.read_bytes()[-100:]:\n"
        "            import time; time.sleep(600)\n"
        "        if b'hog' in event.path.read_bytes()[-100:]:\n"
        "            import time; hog = bytearray(900 << 20); time.sleep(600)\n"
        "        return real(engine, event, setup, say)\n"
        "    buoy.function.attempt = attempt\n"
    )
    return str(tmp_path)


def test_a_crashing_picture_takes_down_only_its_own_worker(
    gateway: Gateway, model: Path, name: str, tmp_path: Path
) -> None:
    variables = {"BUOY_MODEL": str(model), "PYTHONPATH": misbehaving(tmp_path)}
    gateway.create(name, SCRIPT, environment={"Variables": variables}, cpu="1", memory="1Gi")
    for number in range(20):
        gateway.drop(name, f"input/{number}.png", PICTURE + (b"crash" if number in (3, 11) else b""))
    jobs = gateway.finished(20, name, timeout_s=120)
    failed = {job["key"]: job["reason"] for job in jobs if job["state"] == "Failed"}
    assert failed == {
        key: f"the model process was ended by signal 11 (SIGSEGV) while working on {key}"
        for key in ("input/3.png", "input/11.png")
    }
    assert sum(job["state"] == "Succeeded" for job in jobs) == 18
    record = json.loads(outputs(gateway, name)["3.png.error.json"])
    assert record["schema"] == "buoy.result/1"
    assert record["input"]["name"] == "3.png"
    assert record["model"]["name"] == "tiny"
    assert record["error"]["message"] == failed["input/3.png"]


def test_a_picture_that_takes_too_long_fails_alone(gateway: Gateway, model: Path, name: str, tmp_path: Path) -> None:
    variables = {"BUOY_MODEL": str(model), "PYTHONPATH": misbehaving(tmp_path)}
    gateway.create(name, SCRIPT, environment={"Variables": variables}, cpu="1", memory="1Gi")
    for number in range(6):
        gateway.drop(name, f"input/{number}.png", PICTURE + (b"hang" if number == 2 else b""))
    jobs = gateway.finished(6, name, timeout_s=60)
    failed = {job["key"]: job["reason"] for job in jobs if job["state"] == "Failed"}
    assert failed == {"input/2.png": "ended after 5 s, the time limit of a job; raise it with --job-timeout"}


def test_a_worker_over_its_memory_is_ended_and_the_guilty_picture_fails(
    gateway: Gateway, model: Path, name: str, tmp_path: Path
) -> None:
    variables = {"BUOY_MODEL": str(model), "PYTHONPATH": misbehaving(tmp_path)}
    gateway.create(name, SCRIPT, environment={"Variables": variables}, cpu="1", memory="300Mi")
    for number in range(4):
        gateway.drop(name, f"input/{number}.png", PICTURE + (b"hog" if number == 1 else b""))
    jobs = gateway.finished(4, name, timeout_s=60)
    (failed,) = (job for job in jobs if job["state"] == "Failed")
    assert failed["key"] == "input/1.png"
    assert f"raise `memory` of service {name}" in failed["reason"]


def test_an_unknown_model_fails_each_job_with_a_record_and_nothing_else(gateway: Gateway, name: str) -> None:
    create(gateway, name, "no-such-model")
    gateway.drop(name, "input/x.png", PICTURE)
    (job,) = gateway.finished(1, name)
    assert job["state"] == "Failed"
    assert "no-such-model" in job["reason"]
    assert "no-such-model" in json.loads(outputs(gateway, name)["x.png.error.json"])["error"]["message"]


def test_an_updated_service_gets_a_new_worker(gateway: Gateway, model: Path, name: str) -> None:
    create(gateway, name, model)
    gateway.drop(name, "input/1.png", PICTURE)
    gateway.finished(1, name)
    with gateway.client() as http:
        definition = http.get(f"/system/services/{name}").json()
        definition["environment"]["variables"]["BUOY_OUTPUTS"] = "csv"
        assert http.put("/system/services", json=definition).status_code == 204
    gateway.drop(name, "input/2.png", PICTURE)
    gateway.finished(2, name)
    assert {"1.png.json", "2.png.csv"} <= set(outputs(gateway, name))
    assert "2.png.json" not in outputs(gateway, name)


def test_kill_9_while_workers_run_loses_nothing(model: Path, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data").start()
    create(gateway, "warm", model)
    dropped = 0
    for pause_s in (0.0, 0.5, 0.9, 1.3):
        for _ in range(25):
            gateway.drop("warm", f"input/{dropped}.png", PICTURE)
            dropped += 1
        time.sleep(pause_s)
        gateway.kill9()
        gateway.start()
    jobs = gateway.finished(dropped, "warm")
    gateway.stop()
    assert {job["state"] for job in jobs} == {"Succeeded"}
    assert len(jobs) == dropped
    assert {f"{number}.png.json" for number in range(dropped)} <= set(outputs(gateway, "warm"))


def test_a_worker_that_is_killed_is_replaced(gateway: Gateway, model: Path, name: str) -> None:
    create(gateway, name, model)
    gateway.drop(name, "input/1.png", PICTURE)
    gateway.finished(1, name)
    os.kill(worker_of(gateway, name).pid, signal.SIGKILL)
    gateway.drop(name, "input/2.png", PICTURE)
    assert gateway.finished(2, name)[0]["state"] == "Succeeded"
