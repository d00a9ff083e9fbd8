"""OSCAR's API: what its own client and plain HTTP see of a real `buoy up`."""

from __future__ import annotations

import base64
import io
import json
import uuid
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests

from support.gateway import COPY, Gateway, running, service, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    from oscar_python.client import Client


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("up") / "data") as gateway:
        yield gateway


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx2.Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture(scope="module")
def oscar(gateway: Gateway) -> Client:
    known = gateway.credentials
    options = {"cluster_id": "site", "endpoint": gateway.url, "ssl": False}
    return Client({**options, "user": known["username"], "password": known["password"]})


# With oscar-python


def test_oscar_python_reads_the_cluster(oscar: Client) -> None:
    assert oscar.health_check().text == "Ok"
    assert oscar.get_cluster_info().json()["version"].startswith("buoy-")
    assert oscar.get_cluster_config().text.startswith('{"config":{"name":"oscar"')
    status = oscar.get_cluster_status().json()
    assert status["cluster"]["nodes_count"] == 1
    (node,) = status["detail"]  # as oscar-batch reads it
    assert int(node["cpuCapacity"]) >= 1000
    assert int(node["memoryCapacity"]) > int(node["memoryUsage"])


def test_oscar_python_manages_a_service(oscar: Client, name: str) -> None:
    assert oscar.create_service(service(name)).status_code == 201
    with pytest.raises(ValueError, match="already present"):
        oscar.create_service(service(name))
    made = oscar.get_service(name).json()
    assert len(made["token"]) == 64
    assert made["owner"] == "cluster_admin"
    assert name in [one["name"] for one in oscar.list_services().json()]
    assert oscar.update_service(name, service(name, "echo new\n", owner="")).status_code == 204
    updated = oscar.get_service(name).json()
    assert updated["script"] == "echo new\n"
    assert (updated["token"], updated["owner"]) == (made["token"], made["owner"])
    assert oscar.get_deployment_status(name).json()["service_name"] == name
    assert oscar.get_deployment_logs(name).json()["entries"] == []
    assert oscar.remove_service(name).status_code == 204
    with pytest.raises(requests.HTTPError, match="404"):
        oscar.get_service(name)


def test_oscar_python_creates_from_an_fdl_file(oscar: Client, name: str, tmp_path: Path) -> None:
    (tmp_path / "script.sh").write_bytes(COPY.replace("\n", "\r\n").encode())
    (tmp_path / "service.yaml").write_text(
        f"""
functions:
  oscar:
  - site:
      name: {name}
      cpu: 0.5
      memory: 256Mi
      image: ghcr.io/none
      script: script.sh
      environment: {{Variables: {{A: "1"}}}}
      input: [{{storage_provider: minio.default, path: {name}/in/}}]
      output: [{{storage_provider: minio.default, path: {name}/out}}]
"""
    )
    assert oscar.create_service(str(tmp_path / "service.yaml")).status_code == 201
    made = oscar.get_service(name).json()
    assert made["script"] == COPY
    assert made["environment"]["variables"] == {"A": "1"}
    assert made["cpu"] == "0.5"


def test_oscar_python_runs_a_service_and_waits(oscar: Client, name: str, tmp_path: Path) -> None:
    oscar.create_service(service(name, COPY, output=[]))
    (tmp_path / "x.bin").write_bytes(bytes(range(256)))
    answer = oscar.run_service(name, input=str(tmp_path / "x.bin"), output=str(tmp_path / "y.bin"))
    assert answer.status_code == 200
    assert (tmp_path / "y.bin").read_bytes() == bytes(range(256))


def test_oscar_python_queues_a_job_and_reads_its_log(oscar: Client, gateway: Gateway, name: str) -> None:
    oscar.create_service(service(name, 'cat "$INPUT_FILE_PATH"\n'))
    assert oscar.run_service(name, input="from afar", async_call=True).status_code == 201
    gateway.finished(1, name)
    ((job, times),) = oscar.list_jobs(name).json()["jobs"].items()
    assert job.startswith(f"{name}-")
    assert times["status"] == "Succeeded"
    assert set(times) == {"status", "creation_time", "start_time", "finish_time"}
    assert oscar.get_job_logs(name, job).text == "from afar"
    assert oscar.remove_job(name, job).status_code == 204
    assert oscar.list_jobs(name).json() == {"jobs": {}}


def test_oscar_python_uses_buckets_and_presigned_urls(oscar: Client, name: str) -> None:
    assert oscar.create_bucket(name).status_code == 201
    with pytest.raises(requests.HTTPError, match="409"):
        oscar.create_bucket(name)
    assert oscar.update_bucket(name, "private").status_code == 204
    assert name in [one["bucket_name"] for one in oscar.list_buckets().json()]
    key = "deep/a b+c%ü?#.txt"
    up = oscar.presign_bucket(name, key, "upload", expires=60).json()
    content = bytes(3_000_000)
    assert requests.put(up["url"], data=content, timeout=30).status_code == 200
    (shown,) = oscar.get_bucket(name).json()["objects"]
    assert (shown["object_name"], shown["size_bytes"]) == (key, len(content))
    down = oscar.presign_bucket(name, key).json()
    assert down["method"] == "GET"
    assert requests.get(down["url"], timeout=30).content == content
    assert requests.get(down["url"], headers={"Range": "bytes=-5"}, timeout=30).content == content[-5:]
    assert oscar.delete_bucket(name).status_code == 204
    with pytest.raises(requests.HTTPError, match="404"):
        oscar.get_bucket(name)


# With plain HTTP


def test_the_system_routes_need_the_password(gateway: Gateway, http: httpx2.Client) -> None:
    for auth in (None, ("oscar", "wrong"), ("", ""), ("öscar", "ü")):
        assert httpx2.get(f"{gateway.url}/system/services", auth=auth).status_code == 401
    assert httpx2.get(f"{gateway.url}/health").text == "Ok"
    for path in ("/system/info", "/system/config", "/system/logs", "/system/buckets/x", "/page/jobs", "/page/events"):
        assert httpx2.get(gateway.url + path).status_code == 401
    token = gateway.create(f"auth-{uuid.uuid4().hex[:8]}")["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert httpx2.get(f"{gateway.url}/system/services", headers=bearer).status_code == 401


def test_run_and_job_need_the_services_own_token(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    token = gateway.create(name, output=[])["token"]
    other = gateway.create(f"{name}-other")["token"]
    for wrong in ("none", other, token[:-1], "0" * 64):
        headers = {"Authorization": f"Bearer {wrong}"}
        assert httpx2.post(f"{gateway.url}/run/{name}", content=b"x", headers=headers).status_code == 401
        assert httpx2.post(f"{gateway.url}/job/none", content=b"x", headers=headers).status_code == 401
    right = {"Authorization": f"Bearer {token}"}
    assert httpx2.post(f"{gateway.url}/run/{name}", content=b"x", headers=right).status_code == 200
    assert http.post(f"/run/{name}", content=b"x").status_code == 200  # the administrator, whom OSCAR refuses
    assert http.post("/run/none", content=b"x").status_code == 404


def test_a_service_looks_as_upstream_writes_it(gateway: Gateway, name: str) -> None:
    gateway.create(name, memory="1Gi", expose={"api_port": 8501})
    with gateway.client() as http:
        text = http.get(f"/system/services/{name}").text
        listed = http.get("/system/services/").text
    assert text.startswith(f'{{"name":"{name}","cluster_id":"","memory":"1Gi","cpu":"0.5","total_memory":""')
    assert '"api_port":[8501]' in text
    assert '"volume_status":{"enabled":false}' in text
    assert '"secret_key":"hidden"' in text
    assert text in listed


def test_errors_have_one_form_in_json_and_plain_text_otherwise(http: httpx2.Client, name: str) -> None:
    plain = http.get(f"/system/services/{name}")
    assert plain.status_code == 404
    assert plain.headers["content-type"].startswith("text/plain")
    assert plain.text.startswith(f"there is no service '{name}'")
    shaped = http.get(f"/system/services/{name}", headers={"Accept": "application/json"})
    assert set(shaped.json()["error"]) == {"class", "message", "hint"}
    assert shaped.json()["error"]["class"] == "MissingError"
    for method, path, status in (("GET", "/nowhere", 404), ("PATCH", "/system/services", 405)):
        answer = http.request(method, path, headers={"Accept": "application/json"})
        assert answer.status_code == status
        assert path in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"script": ""}, "there is no script"),
        ({"script": None}, "there is no script"),
        ({"name": "Not_DNS"}, "'Not_DNS' is not a DNS label"),
        ({"name": ""}, "without a name"),
        ({"name": "x" * 40}, "is not a DNS label"),
        ({"cpu": "much"}, "cpu: 'much' is not a quantity; cores as a Kubernetes quantity"),
        ({"cpu": [1]}, "cpu: expected a quantity, not [1]"),
        ({"memory": "1 GB"}, "memory: '1 GB' is not a quantity"),
        ({"input": [{"storage_provider": "s3.x", "path": "a/b"}]}, "'s3.x' is not known here"),
        ({"input": [{"path": " / "}]}, "input[0].path is empty"),
        ({"output": [{"path": "Bad_Bucket/x"}]}, "output[0].path: 'Bad_Bucket' is no name for a bucket"),
        ({"output": [{"path": "good/../x"}]}, "'../x' is not a folder"),
        ({"environment": {"variables": ["A"]}}, "environment: variables: expected a map"),
    ],
)
def test_a_wrong_definition_is_refused_with_what_where_and_why(
    http: httpx2.Client, fields: dict[str, Any], told: str
) -> None:
    answer = http.post("/system/services", json={**service("wrong"), **fields})
    assert answer.status_code == 400
    assert told in answer.text
    assert http.get("/system/services/wrong").status_code == 404


@pytest.mark.parametrize("cpu", ["0.5", 0.5, "500m"])
def test_cpu_may_be_text_or_a_number(gateway: Gateway, http: httpx2.Client, name: str, cpu: object) -> None:
    body = json.dumps(service(name, cpu=cpu))
    # as oscar-cli sends it: no content type
    assert http.post("/system/services", content=body.encode(), headers={"Content-Type": ""}).status_code == 201
    assert http.get(f"/system/services/{name}").json()["cpu"] == str(cpu)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"nothing", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_definition_is_a_400(http: httpx2.Client, body: bytes) -> None:
    assert http.post("/system/services", content=body).status_code == 400


def test_a_name_that_is_taken_is_a_409_and_an_unknown_one_a_404(
    gateway: Gateway, http: httpx2.Client, name: str
) -> None:
    assert http.put("/system/services", json=service(name)).status_code == 404
    gateway.create(name)
    assert http.post("/system/services", json=service(name)).status_code == 409
    shouted = {key.upper(): value for key, value in service(name).items()}
    assert http.post("/system/services", json=shouted).status_code == 409


def test_deleting_a_service_keeps_its_data_unless_asked(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    for query, kept in (("", True), ("?delete_data=true", False)):
        gateway.create(name)
        assert http.delete(f"/system/services/{name}{query}").status_code == 204
        assert (gateway.data / "buckets" / name).exists() is kept


def test_run_answers_one_file_several_or_the_log(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    script = """
case "$(cat "$INPUT_FILE_PATH")" in
    one) printf 1 > "$TMP_OUTPUT_DIR/a" ;;
    two) printf 1 > "$TMP_OUTPUT_DIR/a"; mkdir "$TMP_OUTPUT_DIR/d"; printf 2 > "$TMP_OUTPUT_DIR/d/b" ;;
    log) echo said ;;
    *) echo wrong input >&2; exit 7 ;;
esac
"""
    gateway.create(name, script)
    one, two, log, bad = (
        http.post(f"/run/{name}", content=base64.b64encode(text)) for text in (b"one", b"two", b"log", b"else")
    )
    assert base64.b64decode(one.content) == b"1"
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(two.content))) as archive:
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {"a": b"1", "d/b": b"2"}
    assert log.text == "said\n"
    assert bad.status_code == 500
    assert bad.text.startswith("exit status 7\n")
    assert "wrong input" in bad.text
    # a run has its outputs in the bucket as well, and is no job of OSCAR's list
    assert (gateway.data / "buckets" / name / "output/d/b").read_text() == "2"
    assert http.get(f"/system/logs/{name}").json() == {"jobs": {}}


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"", b""),
        (b'{"start": 1, "end": 5}', b'{"start": 1, "end": 5}'),
        (b"start=1&end=5", b"start=1&end=5"),  # what oscar-python makes of a dict
        (b"\x89PNG\r\n\x1a\n\x00", b"\x89PNG\r\n\x1a\n\x00"),
        (b"aGVs\nbG8=\n", b"hello"),
        (b"[1, 2]", b"[1, 2]"),
    ],
)
def test_run_takes_json_base64_and_bytes(gateway: Gateway, http: httpx2.Client, sent: bytes, seen: bytes) -> None:
    if http.get("/system/services/echo").status_code == 404:
        gateway.create("echo", COPY)
    answer = http.post("/run/echo", content=sent)
    assert answer.status_code == 200, answer.text
    assert base64.b64decode(answer.content) == seen


def test_a_storage_event_can_be_run_while_its_sender_waits(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    gateway.create(name, 'cat "$INPUT_FILE_PATH"\n', input=[])
    gateway.drop(f"{name}", "any/x", b"content")
    event = {"Records": [{"eventSource": "minio:s3", "s3": {"bucket": {"name": name}, "object": {"key": "any%2Fx"}}}]}
    for _ in range(2):
        assert http.post(f"/run/{name}", json=event).text == "content"
    event["Records"][0]["s3"]["object"]["key"] = "none"  # type: ignore[index]
    assert http.post(f"/run/{name}", json=event).status_code == 404


def test_a_body_over_the_limit_is_a_413_that_names_it(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    gateway.create(name)
    answer = http.post(f"/job/{name}", content=bytes(65 << 20))
    assert answer.status_code == 413
    assert "64 MiB" in answer.text


def test_job_lists_come_in_pages(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    gateway.create(name, "true\n", cpu="0.1")
    for number in range(75):
        gateway.drop(name, f"input/{number}", b"")
    gateway.finished(75, name, timeout_s=120)
    first = http.get(f"/system/logs/{name}").json()
    second = http.get(f"/system/logs/{name}", params={"page": first["next_page"]}).json()
    assert (len(first["jobs"]), len(second["jobs"])) == (70, 5)
    assert not set(first["jobs"]) & set(second["jobs"])
    assert "next_page" not in second
    assert http.delete(f"/system/logs/{name}").status_code == 204
    assert http.get(f"/system/logs/{name}").json() == {"jobs": {}}


def test_deleting_jobs_keeps_those_that_failed_unless_all_are_meant(
    gateway: Gateway, http: httpx2.Client, name: str
) -> None:
    gateway.create(name, '[ "$(cat "$INPUT_FILE_PATH")" = good ]\n')
    for word in ("good", "bad"):
        gateway.drop(name, f"input/{word}", word.encode())
    gateway.finished(2, name)
    assert http.delete(f"/system/logs/{name}?all=false").status_code == 204
    (left,) = http.get(f"/system/logs/{name}").json()["jobs"].values()
    assert left["status"] == "Failed"
    assert http.delete(f"/system/logs/{name}?all=true").status_code == 204
    assert http.get(f"/system/logs/{name}").json() == {"jobs": {}}


def test_buckets_are_listed_in_pages_of_the_size_asked_for(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    assert http.post("/system/buckets", json={"bucket_name": name}).status_code == 201
    for number in range(5):
        gateway.drop(name, str(number), b"x")
    first = http.get(f"/system/buckets/{name}", params={"limit": 3}).json()
    assert [o["object_name"] for o in first["objects"]] == ["0", "1", "2"]
    assert (first["is_truncated"], first["returned_items"]) == (True, 3)
    rest = http.get(f"/system/buckets/{name}", params={"limit": 3, "page": first["next_page"]}).json()
    assert [o["object_name"] for o in rest["objects"]] == ["3", "4"]
    assert rest["is_truncated"] is False
    for bad in ({"bucket_name": "Bad_Name"}, {}):
        assert http.post("/system/buckets", json=bad).status_code in (400, 500)


def test_a_signed_url_is_good_for_one_object_method_and_time_only(
    gateway: Gateway, http: httpx2.Client, name: str
) -> None:
    http.post("/system/buckets", json={"bucket_name": name})
    ask = f"/system/buckets/{name}/presign"
    url = http.post(ask, json={"object_key": "x", "operation": "upload", "expires_in": 60}).json()["url"]
    assert httpx2.put(url, content=b"1").status_code == 200
    assert httpx2.get(url).status_code == 403
    assert httpx2.put(url.replace("/x?", "/y?"), content=b"1").status_code == 403
    assert httpx2.put(url.replace("expires=1", "expires=2"), content=b"1").status_code == 403
    assert httpx2.put(url.partition("?")[0], content=b"1").status_code == 403
    down = http.post(ask, json={"object_key": "x", "operation": "download", "expires": 1}).json()["url"]
    until(lambda: httpx2.get(down).status_code == 403)
    for wrong in ({"operation": "upload"}, {"object_key": "x", "operation": "move"}):
        assert http.post(ask, json=wrong).status_code == 400
    assert http.post(ask, json={"object_key": "x", "operation": "upload", "expires_in": 604801}).status_code == 400
    assert http.post("/system/buckets/none-here/presign", json={"object_key": "x"}).status_code == 404


def test_calls_of_run_and_job_are_listed(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    gateway.create(name, output=[])
    http.post(f"/run/{name}", content=b"x")
    calls = http.get("/system/logs").json()["logs"]
    assert [call["status"] for call in calls if call["path"] == f"/run/{name}"] == [200]


def test_slashes_at_the_end_and_head_are_fine(http: httpx2.Client) -> None:
    assert http.get("/system/config/").status_code == 200
    assert http.head("/health").status_code == 200


def test_another_sites_page_cannot_use_a_remembered_password(gateway: Gateway, http: httpx2.Client, name: str) -> None:
    gateway.create(name, output=[])
    foreign = {"Origin": "http://evil.example"}
    assert http.post("/system/services", json=service(f"{name}-x"), headers=foreign).status_code == 403
    assert http.post(f"/run/{name}", content=b"x", headers=foreign).status_code == 403
    assert http.post(f"/run/{name}", content=b"x", headers={"Origin": gateway.url}).status_code == 200
