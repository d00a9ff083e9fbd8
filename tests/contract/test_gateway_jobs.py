"""Objects in, jobs, objects out: over a real `buoy up`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway import COPY, Gateway, running, service, until


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("up") / "data", "--job-timeout", "2") as gateway:
        yield gateway


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


def out(gateway: Gateway, name: str, relative: str) -> Path:
    return gateway.data / "buckets" / name / "output" / relative


def test_a_dropped_file_becomes_a_result(gateway: Gateway, name: str) -> None:
    gateway.create(name)
    gateway.drop(name, "input/a b+ü%.txt", b"hello")
    (job,) = gateway.finished(1, name)
    assert (job["state"], job["exit_code"], job["key"]) == ("Succeeded", 0, "input/a b+ü%.txt")
    assert out(gateway, name, "a b+ü%.txt.out").read_bytes() == b"hello"
    assert not list((gateway.data / "work").glob(f"{name}*"))


def test_the_script_sees_what_oscars_supervisor_gives_it(gateway: Gateway, name: str) -> None:
    script = '#!/bin/sh\nenv -0 > "$TMP_OUTPUT_DIR/env"\npwd > "$TMP_OUTPUT_DIR/pwd"\n'
    made = gateway.create(name, script.replace("\n", "\r\n"), environment={"Variables": {"COLOUR": "sea green"}})
    gateway.drop(name, "input/deep/ a\\n*  b.jpg", b"x")
    (job,) = gateway.finished(1, name)
    pairs = out(gateway, name, "env").read_text().rstrip("\0").split("\0")
    env = dict(pair.split("=", 1) for pair in pairs)
    event = json.loads(env["EVENT"])
    record = event["Records"][0]
    assert record["eventSource"] == "minio:s3"
    assert record["s3"]["bucket"]["name"] == name
    assert record["s3"]["object"]["key"] == "input%2Fdeep%2F+a%5Cn%2A++b.jpg"
    assert env["STORAGE_OBJECT_KEY"] == "input/deep/ a\\n*  b.jpg"
    assert env["EVENT_TIME"] == record["eventTime"]
    assert env["JOB_UUID"] == job["name"]
    assert env["OSCAR_SERVICE_NAME"] == name
    assert env["OSCAR_SERVICE_TOKEN"] == made["token"]
    assert env["COLOUR"] == "sea green"
    work = gateway.data / "work" / job["name"]
    assert env["INPUT_FILE_PATH"] == f"{work}/in/ a\\n*  b.jpg"
    assert env["TMP_INPUT_DIR"] == f"{work}/in"
    assert env["TMP_OUTPUT_DIR"] == f"{work}/out"
    assert out(gateway, name, "pwd").read_text().strip() == str(work)


def test_outputs_keep_their_folders_and_pass_their_filters(gateway: Gateway, name: str) -> None:
    script = (
        'mkdir -p "$TMP_OUTPUT_DIR/a/b"\nfor f in x.json x.csv a/b/y.json; do echo "$f" > "$TMP_OUTPUT_DIR/$f"; done\n'
    )
    entry = {"storage_provider": "minio.default", "path": f"{name}/output"}
    more = {"storage_provider": "minio.default", "path": f"{name}/only", "suffix": [".json"], "prefix": ["a/"]}
    gateway.create(name, script, output=[entry, more])
    gateway.drop(name, "input/1", b"")
    gateway.finished(1, name)
    with gateway.client() as http:
        objects = http.get(f"/system/buckets/{name}").json()["objects"]
    keys = [o["object_name"] for o in objects if not o["object_name"].startswith("input/")]
    assert keys == ["only/a/b/y.json", "output/a/b/y.json", "output/x.csv", "output/x.json"]


def test_a_failed_script_is_a_failed_job_and_its_outputs_are_kept(gateway: Gateway, name: str) -> None:
    gateway.create(name, 'echo half > "$TMP_OUTPUT_DIR/half"\necho "cannot go on" >&2\nexit 4\n')
    gateway.drop(name, "input/x", b"1")
    (job,) = gateway.finished(1, name)
    assert (job["state"], job["exit_code"], job["attempt"]) == ("Failed", 4, 1)
    assert job["reason"] == "the script ended with exit code 4: cannot go on"
    assert out(gateway, name, "half").exists()


def test_exit_3_names_the_error_records_and_is_not_tried_again(gateway: Gateway, name: str) -> None:
    gateway.create(name, 'echo "{}" > "$TMP_OUTPUT_DIR/x.jpg.error.json"\nexit 3\n')
    gateway.drop(name, "input/x.jpg", b"1")
    (job,) = gateway.finished(1, name)
    assert (job["state"], job["inputs_failed"], job["attempt"]) == ("Failed", 1, 1)
    assert job["reason"] == "1 of its inputs failed, see x.jpg.error.json"
    assert out(gateway, name, "x.jpg.error.json").exists()


def test_exit_75_is_tried_again_until_it_works(gateway: Gateway, name: str, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    gateway.create(name, f'echo run >> {mark}\n[ "$(wc -l < {mark})" -ge 3 ] || exit 75\n')
    gateway.drop(name, "input/x", b"1")
    (job,) = gateway.finished(1, name)
    assert (job["state"], job["attempt"]) == ("Succeeded", 3)


def test_a_job_over_its_memory_is_ended_and_says_so(gateway: Gateway, name: str) -> None:
    hog = "exec python3 -c 'import time; data = bytearray(200 << 20); time.sleep(60)'"
    gateway.create(name, hog, memory="64Mi")
    gateway.drop(name, "input/x", b"1")
    (job,) = gateway.finished(1, name)
    assert job["state"] == "Failed"
    assert "of 64 MiB" in job["reason"]
    assert f"raise `memory` of service {name}" in job["reason"]


def test_a_job_over_its_time_is_ended_with_its_children(gateway: Gateway, name: str, tmp_path: Path) -> None:
    gateway.create(name, f"sleep 600 & echo $! > {tmp_path}/pid\nsleep 600\n")
    gateway.drop(name, "input/x", b"1")
    (job,) = gateway.finished(1, name)
    assert job["state"] == "Failed"
    assert job["reason"] == "ended after 2 s, the time limit of a job; raise it with --job-timeout"
    child = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    until(lambda: not child.exists() or child.read_text().split()[2] == "Z")


def test_the_log_is_live_and_bounded(gateway: Gateway, name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = (
        f"echo first\nwhile [ ! -e {go} ]; do sleep 0.02; done\nhead -c 3000000 /dev/zero | tr '\\0' x\necho last\n"
    )
    gateway.create(name, script)
    gateway.drop(name, "input/x", b"1")
    (job,) = until(lambda: gateway.jobs(name))
    with gateway.client() as http:
        until(lambda: http.get(f"/system/logs/{name}/{job['name']}").text == "first\n")
        go.touch()
        gateway.finished(1, name)
        log = http.get(f"/system/logs/{name}/{job['name']}").text
    assert log.startswith("first\nxxx")
    assert log.endswith("x" * 1000 + "last\n")
    assert "bytes left out" in log
    assert len(log) < 1_200_000


def test_duplicate_events_do_nothing_and_a_replaced_file_is_a_new_job(gateway: Gateway, name: str) -> None:
    gateway.create(name)
    gateway.drop(name, "input/x", b"one")
    gateway.finished(1, name)
    event = {"Records": [{"eventSource": "minio:s3", "s3": {"bucket": {"name": name}, "object": {"key": "input%2Fx"}}}]}
    with gateway.client() as http:
        names = {http.post(f"/job/{name}", json=event).json()["job"] for _ in range(5)}
    assert names == {gateway.jobs(name)[0]["name"]}
    gateway.drop(name, "input/x", b"two")
    jobs = gateway.finished(2, name)
    assert [job["state"] for job in jobs] == ["Succeeded", "Succeeded"]
    assert out(gateway, name, "x.out").read_bytes() == b"two"


def test_all_records_of_an_event_become_jobs(gateway: Gateway, name: str) -> None:
    made = gateway.create(name)
    with gateway.client() as http:
        assert http.post("/system/buckets", json={"bucket_name": f"{name}-b"}).status_code == 201
        for key in ("x", "y z"):
            gateway.drop(f"{name}-b", key, key.encode())
        records = [
            {"eventSource": "minio:s3", "s3": {"bucket": {"name": f"{name}-b"}, "object": {"key": key}}}
            for key in ("x", "y+z")
        ]
        token = {"Authorization": f"Bearer {made['token']}"}
        answer = http.post(f"/job/{name}", json={"Records": records}, headers=token)
    assert answer.status_code == 201
    assert len(answer.json()["jobs"]) == 2
    gateway.finished(2, name)
    assert out(gateway, name, "y z.out").read_bytes() == b"y z"


def test_output_in_its_own_input_path_does_not_loop(gateway: Gateway, name: str) -> None:
    gateway.create(name, output=[{"path": f"{name}/input/done"}])
    gateway.drop(name, "input/x", b"1")
    gateway.finished(1, name)
    assert (gateway.data / "buckets" / name / "input/done/x.out").exists()
    gateway.drop(name, "input/y", b"2")  # by the time this one is over, an event of the first output has come
    jobs = gateway.finished(2, name)
    assert sorted(job["key"] for job in jobs) == ["input/x", "input/y"]


def test_two_services_chain_and_a_circle_of_them_ends(gateway: Gateway, name: str) -> None:
    a, b = f"{name}-a", f"{name}-b"
    gateway.create(a, output=[{"path": f"{b}/input"}])
    gateway.create(b, output=[{"path": f"{a}/input"}])
    gateway.drop(a, "input/x", b"1")
    assert [job["key"] for job in gateway.finished(1, b)] == ["input/x.out"]
    until((gateway.data / "buckets" / a / "input/x.out.out").exists)
    gateway.drop(a, "input/y", b"2")
    gateway.finished(2, b)
    assert sorted(job["key"] for job in gateway.jobs(a)) == ["input/x", "input/y"]


def test_a_file_is_taken_only_when_it_is_written(gateway: Gateway, name: str) -> None:
    gateway.create(name)
    target = gateway.data / "buckets" / name / "input" / "slow"
    with target.open("wb") as slow:
        for _ in range(5):
            slow.write(b"piece")
            slow.flush()
            time.sleep(0.05)
        assert not gateway.jobs(name)
    gateway.finished(1, name)
    assert out(gateway, name, "slow.out").read_bytes() == b"piece" * 5


def test_a_folder_moved_in_is_all_its_files(gateway: Gateway, name: str, tmp_path: Path) -> None:
    gateway.create(name, 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/$(basename "$INPUT_FILE_PATH")-$$"\n')
    inbox = gateway.data / "buckets" / name / ".staging"
    (inbox / "2011/05").mkdir(parents=True)
    for number in range(3):
        (inbox / f"2011/05/{number}.jpg").write_bytes(b"x")
    inbox.rename(gateway.data / "buckets" / name / "input" / "moved")
    jobs = gateway.finished(3, name)
    assert sorted(job["key"] for job in jobs) == [f"input/moved/2011/05/{number}.jpg" for number in range(3)]


def test_an_object_that_vanished_is_a_failed_job_with_a_reason(gateway: Gateway, name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    gateway.create(name, f"while [ ! -e {go} ]; do sleep 0.02; done\n", cpu="2")
    gateway.drop(name, "input/1", b"1")
    until(lambda: gateway.counts(name)["Running"])
    second = gateway.drop(name, "input/2", b"2")
    until(lambda: gateway.counts(name)["Pending"])
    second.unlink()
    go.touch()
    later, first = gateway.finished(2, name)
    assert (first["state"], later["state"]) == ("Succeeded", "Failed")
    assert "there is no object" in later["reason"]


def test_a_bucket_deleted_while_a_job_runs_fails_that_job_alone(gateway: Gateway, name: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    gateway.create(name, f"while [ ! -e {go} ]; do sleep 0.02; done\n{COPY}", output=[{"path": f"{name}-gone/output"}])
    other = f"{name}-o"
    gateway.create(other)
    gateway.drop(name, "input/x", b"1")
    until(lambda: gateway.counts(name)["Running"])
    with gateway.client() as http:
        assert http.delete(f"/system/buckets/{name}-gone").status_code == 204
    go.touch()
    gateway.drop(other, "input/x", b"1")
    (job,) = gateway.finished(1, name)
    assert job["state"] == "Failed"
    assert f"{name}-gone" in job["reason"]
    assert gateway.finished(1, other)[0]["state"] == "Succeeded"


def test_one_services_backlog_does_not_starve_another(gateway: Gateway, name: str) -> None:
    long, short = f"{name}-long", f"{name}-short"
    gateway.create(long, "sleep 0.05\n", cpu="1")
    gateway.create(short, "true\n", cpu="1")
    for number in range(60):
        gateway.drop(long, f"input/{number}", b"1")
    until(lambda: gateway.counts(long)["Succeeded"] >= 2)
    gateway.drop(short, "input/x", b"1")
    gateway.finished(1, short)
    assert gateway.counts(long)["Pending"] > 0
    gateway.finished(60, long)


def test_no_more_jobs_run_at_once_than_the_cpu_allows(gateway: Gateway, name: str, tmp_path: Path) -> None:
    running_now = tmp_path / "now"
    running_now.mkdir()
    script = f"touch {running_now}/$$; ls {running_now} | wc -l >> {tmp_path}/seen; sleep 0.05; rm {running_now}/$$\n"
    gateway.create(name, script, cpu="64")
    for number in range(5):
        gateway.drop(name, f"input/{number}", b"1")
    gateway.finished(5, name)
    assert set((tmp_path / "seen").read_text().split()) == {"1"}


def test_a_posted_payload_is_a_job_and_a_chosen_name_counts_once(gateway: Gateway, name: str) -> None:
    made = gateway.create(name)
    token = {"Authorization": f"Bearer {made['token']}"}
    with gateway.client() as http:
        answer = http.post(f"/job/{name}", content=b'{"start": 1}', headers=token)
        assert answer.status_code == 201
        assert answer.headers["x-job-id"] == answer.json()["job"]
        assert answer.json()["job"].startswith(f"{name}-")
        wished = {"X-Delegated-Job-ID": f"{name}-mine"}
        assert http.post(f"/job/{name}", content=b"aGVsbG8=", headers=wished).json()["job"] == f"{name}-mine"
        assert http.post(f"/job/{name}", content=b"aGVsbG8=", headers=wished).status_code == 409
    jobs = gateway.finished(2, name)
    found = {out(gateway, name, f"{job['key']}.out").read_bytes() for job in jobs}
    assert found == {b'{"start": 1}', b"hello"}


def test_a_finished_job_can_be_run_again_and_a_deleted_one_is_not(gateway: Gateway, name: str, tmp_path: Path) -> None:
    gateway.create(name, f"echo run >> {tmp_path}/runs\nexit 1\n")
    gateway.drop(name, "input/x", b"1")
    (job,) = gateway.finished(1, name)
    with gateway.client() as http:
        assert http.post(f"/page/jobs/{job['name']}/retry").status_code == 202
        until(lambda: (tmp_path / "runs").read_text() == "run\n" * 2)
        gateway.finished(1, name)
        assert http.delete(f"/system/logs/{name}/{job['name']}").status_code == 204
        assert http.get(f"/system/logs/{name}/{job['name']}").status_code == 404
        # an update lists the input path again
        assert http.put("/system/services", json=service(name, "true\n")).status_code == 204
        gateway.drop(name, "input/y", b"2")
        assert [job["key"] for job in gateway.finished(1, name)] == ["input/y"]
    assert (tmp_path / "runs").read_text() == "run\n" * 2


def test_deleting_a_running_job_ends_its_script(gateway: Gateway, name: str, tmp_path: Path) -> None:
    gateway.create(name, f"echo $$ > {tmp_path}/pid\nsleep 600\n")
    gateway.drop(name, "input/x", b"1")
    until((tmp_path / "pid").exists)
    (job,) = gateway.jobs(name)
    process = Path("/proc", (tmp_path / "pid").read_text().strip())
    with gateway.client() as http:
        assert http.delete(f"/system/logs/{name}/{job['name']}").status_code == 204
    until(lambda: not process.exists(), 1.5)  # well before its time limit
    assert gateway.jobs(name) == []
