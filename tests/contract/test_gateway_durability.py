"""Nothing is lost: kill -9, full disks, folders that cannot be written."""

from __future__ import annotations

import os
import random
import socket
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

import psutil
import pytest

from support.gateway import COPY, Gateway, running, until, up


def test_kill_9_loses_no_object_and_repeats_no_finished_job(tmp_path: Path) -> None:
    """Ten hard stops at random moments, while files are dropped and jobs run."""
    runs, data = tmp_path / "runs", tmp_path / "data"
    gateway = Gateway(data).start()
    gateway.create("copy", f'{COPY}sleep 0.02\necho "$STORAGE_OBJECT_KEY" >> {runs}\n', cpu="0.2")
    moments = random.Random(4)
    dropped, done_before = 0, Counter[str]()
    for _ in range(10):
        for _ in range(12):
            gateway.drop("copy", f"input/{dropped}", str(dropped).encode())
            dropped += 1
        time.sleep(moments.uniform(0, 0.4))
        finished = {job["key"] for job in gateway.jobs("copy") if job["state"] == "Succeeded"}
        for key in finished:
            done_before.setdefault(key, runs.read_text().split().count(key))
        gateway.kill9()
        for _ in range(3):  # dropped while nobody looks
            gateway.drop("copy", f"input/{dropped}", str(dropped).encode())
            dropped += 1
        gateway.start()
    jobs = gateway.finished(dropped, "copy")
    gateway.stop()
    assert Counter(job["key"] for job in jobs) == Counter(f"input/{number}" for number in range(dropped))
    assert {job["state"] for job in jobs} == {"Succeeded"}
    for number in range(dropped):
        assert (data / f"buckets/copy/output/{number}.out").read_text() == str(number)
    counted = Counter(runs.read_text().split())
    assert done_before
    assert {key: counted[key] for key in done_before} == done_before


def test_a_posted_payload_survives_kill_9(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data").start()
    gateway.create("copy", f"[ -e {tmp_path}/go ] || exit 75\n{COPY}")
    with gateway.client() as http:
        assert http.post("/job/copy", content=b'{"a": 1}').status_code == 201
    gateway.kill9()
    (tmp_path / "go").touch()
    gateway.start()
    (job,) = gateway.finished(1, "copy")
    gateway.stop()
    assert (tmp_path / f"data/buckets/copy/output/{job['key']}.out").read_text() == '{"a": 1}'


def test_what_a_killed_gateway_left_running_is_ended_at_the_next_start(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data").start()
    gateway.create("slow", f"echo $$ >> {tmp_path}/pids\n[ -e {tmp_path}/go ] || sleep 600\n{COPY}")
    gateway.drop("slow", "input/x", b"1")
    until((tmp_path / "pids").exists)
    pid = int((tmp_path / "pids").read_text())
    gateway.kill9()
    assert psutil.pid_exists(pid)
    (tmp_path / "go").touch()
    gateway.start()
    (job,) = gateway.finished(1, "slow")
    gateway.stop()
    assert (job["state"], job["attempt"]) == ("Succeeded", 2)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_stop_is_quick_and_puts_running_jobs_back(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data").start()
    gateway.create("slow", f"echo run >> {tmp_path}/runs\n[ -e {tmp_path}/go ] || sleep 600\n{COPY}")
    gateway.drop("slow", "input/x", b"1")
    until((tmp_path / "runs").exists)
    with gateway.client() as http, http.stream("GET", "/page/events") as open_page:
        assert open_page.status_code == 200
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 10
    (tmp_path / "go").touch()
    gateway.start()
    (job,) = gateway.finished(1, "slow")
    gateway.stop()
    assert (job["state"], job["attempt"]) == ("Succeeded", 1)


def test_services_and_tokens_survive_a_restart(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        made = gateway.create("copy", environment={"secrets": {"KEY": "hidden-value"}})
        assert made["environment"]["secrets"] == {"KEY": ""}
        gateway.kill9()
        gateway.start()
        with gateway.client() as http:
            assert http.get("/system/services/copy").json() == made


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    """A small disk of its own at the folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_while_results_are_written_is_told_and_waited_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with tmpfs(data / "buckets", "size=2m"), running(data) as gateway:
        gateway.create("big", 'head -c 900000 /dev/zero > "$TMP_OUTPUT_DIR/zeros"\n')
        gateway.create("other")
        ballast = data / "buckets" / "other" / "ballast"
        ballast.write_bytes(b"x" * 1_600_000)
        gateway.drop("big", "input/x", b"1")
        (job,) = until(lambda: [job for job in gateway.jobs("big") if job["reason"]])
        assert "No space left on device" in job["reason"]
        assert "free some space" in job["reason"]
        assert not (data / "buckets/big/output/zeros").exists()
        gateway.drop("other", "input/y", b"2")
        assert gateway.finished(1, "other")[0]["state"] == "Succeeded"
        ballast.unlink()
        (job,) = gateway.finished(1, "big")
        assert job["state"] == "Succeeded"
        assert (data / "buckets/big/output/zeros").stat().st_size == 900_000


def test_a_full_disk_under_everything_loses_no_object(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with tmpfs(data, "size=8m"), running(data) as gateway:
        gateway.create("copy")
        gateway.drop("copy", "input/before", b"1")
        gateway.finished(1, "copy")
        ballast = data / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            fill(file)
        inbox = data / "buckets/copy/input"
        for number in range(5):
            (inbox / f"during-{number}").touch()  # a name needs no room on a tmpfs
        time.sleep(1)
        ballast.unlink()
        jobs = gateway.finished(6, "copy")
        assert {job["state"] for job in jobs} == {"Succeeded"}


def fill(file: RawIOBase) -> None:
    while True:
        file.write(b"x" * 4096)


def test_a_read_only_data_folder_is_one_line_with_a_hint(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with tmpfs(data, "size=1m,ro"):
        ended = up("--data", data)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"buoy: {data}")
    assert "read-only" in ended.stderr.lower()
    assert ended.stderr.count("\n") == 1


def test_two_gateways_do_not_share_a_folder(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        ended = up("--data", gateway.data)
    assert ended.returncode == 2
    assert "another buoy up uses" in ended.stderr


def test_a_taken_port_is_one_line_with_a_hint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = up("--data", tmp_path / "data", "--port", port)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"buoy: port {port} on 127.0.0.1 is taken; stop what uses it, or choose another with --port\n"
    )
    assert not (tmp_path / "data").exists()


def test_an_fdl_folder_that_is_not_there_is_one_line_with_a_hint(tmp_path: Path) -> None:
    ended = up("--data", tmp_path / "data", "--fdl", tmp_path / "none")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "is no folder" in ended.stderr


def test_credentials_are_made_once_for_the_owner_only(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        path = gateway.data / "credentials.yaml"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for name in ("state.db", "state.db-wal"):
            assert stat.S_IMODE((gateway.data / name).stat().st_mode) == 0o600
        first = path.read_text()
        gateway.stop()
        gateway.start()
        assert path.read_text() == first


def test_listening_beyond_this_machine_needs_credentials_that_are_secret(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        gateway.stop()
        (gateway.data / "credentials.yaml").chmod(0o644)
        ended = up("--data", gateway.data, "--host", "0.0.0.0")
    assert ended.returncode == 2
    assert "chmod 600" in ended.stderr


def test_services_of_an_fdl_folder_are_there_and_a_broken_one_is_told(tmp_path: Path) -> None:
    fdl = tmp_path / "fdl"
    for name in ("good", "bad"):
        (fdl / name).mkdir(parents=True)
        script = "../script.sh" if name == "good" else "nowhere.sh"
        (fdl / name / "async.yaml").write_text(
            "functions:\n  oscar:\n  - site:\n"
            f"      name: {name}\n      cpu: 0.5\n      memory: 100Mi\n      script: {script}\n"
            f"      input: [{{storage_provider: minio.default, path: {name}/input}}]\n"
            f"      output: [{{storage_provider: minio.default, path: {name}/output}}]\n"
        )
    (fdl / "script.sh").write_text(COPY)
    (fdl / "site.yaml").write_text("cluster_id: site\n")
    with running(tmp_path / "data", "--fdl", str(fdl)) as gateway:
        gateway.drop("good", "input/x", b"1")
        assert gateway.finished(1, "good")[0]["state"] == "Succeeded"
        with gateway.client() as http:
            assert [one["name"] for one in http.get("/system/services").json()] == ["good"]
        assert "bad/async.yaml: script 'nowhere.sh'" in gateway.log.read_text()
