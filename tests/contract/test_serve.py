"""`buoy serve` over real HTTP: what it answers."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest

from buoy.outputs.drawn import COLOURS
from support.need import CHECKOUT
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

RED = cv2.imencode(".jpg", cv2.cvtColor(picture_with_squares((1, 1), (2, 3), red=True), cv2.COLOR_RGB2BGR))[1].tobytes()
GOOD = png(picture_with_squares((0, 0), (2, 3)))
#: A bright square, a faint one beside it, and another that is apart from both.
FAINT = png(np.maximum(picture_with_squares((1, 1)), picture_with_squares((1, 2), (3, 0)) // 5 * 3))
JPEG = {"Content-Type": "image/jpeg"}
Asks = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("serve"), model, options=("--max-upload", "2")) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as http:
        yield http


def error(answer: httpx2.Response) -> dict[str, str]:
    record: dict[str, str] = answer.json()["error"]
    assert set(record) == {"class", "message", "hint"}
    return record


def without_run(record: bytes) -> bytes:
    return re.sub(rb',\n  "run": \{[^\n]*\}\n', b"\n", record)


@pytest.mark.parametrize(("name", "data"), [("red.jpg", RED), ("a b+ñ.png", GOOD)])
def test_the_json_is_what_the_function_writes(
    http: httpx2.Client, model: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "out").mkdir()
    env = {"INPUT_FILE_PATH": str(tmp_path / name), "TMP_OUTPUT_DIR": str(tmp_path / "out"), "BUOY_MODEL": str(model)}
    command = [str(Path(sys.executable).with_name("buoy")), "function"]
    subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True)
    written = (tmp_path / "out" / f"{name}.json").read_bytes()
    raw = http.post("/predict", content=data, params={"name": name}, headers=JPEG)
    form = http.post("/models/tiny/predict", files={"file": (name, data)})
    for answer in (raw, form):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert without_run(answer.content) == without_run(written)
        assert answer.json()["run"]["callers"] >= 1


def test_the_answer_has_the_form_that_is_accepted(http: httpx2.Client) -> None:
    def ask(accept: str) -> httpx2.Response:
        answer = http.post("/predict", content=GOOD, headers={"Accept": accept, "Content-Type": "image/png"})
        assert answer.headers["content-type"].partition(";")[0] == accept
        return answer

    assert ask("text/csv").text.startswith("name,status,label")
    for accept, inexact in (("image/jpeg", 40), ("image/png", 0)):
        drawn = cv2.imdecode(np.frombuffer(ask(accept).content, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
        assert drawn.shape == (64, 64, 3)
        line, within, outside = drawn[40, 48], drawn[40, 56], drawn[40, 24]  # of the box from (48, 32) to (64, 48)
        for pixel, colour in ((line, COLOURS[0]), (within, (255, 255, 255)), (outside, (0, 0, 0))):
            assert np.abs(pixel - colour).max() <= inexact
    assert len(ask("application/json").json()["detections"]) == 2


def own(http: httpx2.Client, **thresholds: float) -> list[dict[str, Any]]:
    answer = http.post("/predict", content=FAINT, params=thresholds, headers=JPEG).json()
    assert thresholds.items() <= answer["parameters"].items()
    return list(answer["detections"])


def oip(http: httpx2.Client, **thresholds: float) -> list[dict[str, Any]]:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [len(FAINT)], "data": list(FAINT)}
    answer = http.post("/v2/models/tiny/infer", json={"inputs": [tensor], "parameters": thresholds}).json()
    columns = {each["name"]: each["data"] for each in answer["outputs"]}
    boxes = np.reshape(columns["boxes"], (-1, 4)).tolist()
    return [{"score": score, "box": box} for score, box in zip(columns["scores"], boxes, strict=True)]


def deepaas(http: httpx2.Client, **thresholds: float) -> list[dict[str, Any]]:
    given = {"conf" if key == "score" else key: value for key, value in thresholds.items()}
    answer = http.post("/v2/models/tiny/predict/", params=given, files={"files": ("a.png", FAINT)}).json()
    return list(answer["predictions"]["detections"])


def test_thresholds_are_those_of_the_request(tmp_path: Path) -> None:
    """Boxes are wider than cells here: the faint square beside the bright one overlaps it by a fifth."""
    with serving(tmp_path, make_model(tmp_path, side=24)) as served, served.client() as http:
        for ask in (own, oip, deepaas):

            def seen(ask: Asks = ask, **thresholds: float) -> list[tuple[float, float]]:
                return sorted((round(each["score"], 2), each["box"][1]) for each in ask(http, **thresholds))

            bright, beside, apart = (1.0, 12.0), (0.6, 12.0), (0.6, 44.0)
            assert seen() == [beside, apart, bright], ask
            assert seen(score=0.75) == [bright], ask
            assert seen(iou=0.1) == [apart, bright], ask
            assert seen(score=0.75, iou=0.1) == [bright], ask
            assert seen() == [beside, apart, bright], ask  # they were of those requests alone


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"score": "2"}, "parameter score"), ({"score": "nan"}, "parameter score"), ({"iou": ""}, "parameter iou"),
        ({"name": "a\x00b"}, "parameter name"), ({"name": "x" * 600}, "parameter name"),
        ({"scores": "0.5"}, "'scores' is not known"), ({"deadline_ms": "0"}, "deadline"),
        ({"deadline_ms": "soon"}, "deadline"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(http: httpx2.Client, query: dict[str, str], says: str) -> None:
    answer = http.post("/predict", content=GOOD, params=query, headers=JPEG)
    assert answer.status_code == 400
    assert error(answer)["class"] == "UsageError"
    assert says in error(answer)["message"]


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "empty"), (b"text", "text"), (RED[:-40], "truncated"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "header")],
)
def test_a_bad_picture_is_the_senders_fault(http: httpx2.Client, data: bytes, says: str) -> None:
    for answer in (
        http.post("/predict", content=data, headers=JPEG),
        http.post("/predict", files={"file": ("x", data)}),
    ):
        assert answer.status_code == 422
        assert error(answer)["class"] == "InputError"
        assert says in error(answer)["message"]
        assert error(answer)["hint"]


def test_an_upload_over_the_limit_names_the_setting(http: httpx2.Client) -> None:
    def in_pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    large = b"x" * ((2 << 20) + 1)
    for answer in (
        http.post("/predict", content=large, headers=JPEG),
        http.post("/predict", content=in_pieces(), headers=JPEG),
        http.post("/predict", files={"file": ("x.jpg", large)}),
    ):
        assert answer.status_code == 413
        assert "--max-upload" in error(answer)["hint"]
        assert "BUOY_MAX_UPLOAD" in error(answer)["hint"]


def test_what_is_no_picture_and_no_form_is_refused(http: httpx2.Client) -> None:
    answer = http.post("/predict", data={"a": "b"})
    assert answer.status_code == 415
    assert "x-www-form-urlencoded" in error(answer)["message"]
    assert http.post("/predict", content=GOOD, headers={"Accept": "text/html", **JPEG}).status_code == 406


def test_a_form_without_a_file_or_with_two_is_refused(http: httpx2.Client) -> None:
    two = [("file", ("a.png", GOOD)), ("file", ("b.png", GOOD))]
    assert "several" in error(http.post("/predict", files=two))["message"]
    text = http.post("/predict", files={"name": (None, "x")})
    assert (text.status_code, error(text)["class"]) == (400, "UsageError")
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    cut = http.post(
        "/predict",
        content=b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab',
        headers=headers,
    )
    assert cut.status_code == 422
    assert "cut off" in error(cut)["message"]
    assert http.post("/predict", content=b"nonsense", headers=headers).status_code == 422
    assert http.post("/predict", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 422


def test_addresses_and_methods_that_there_are_not(http: httpx2.Client) -> None:
    unknown = http.get("/nothing")
    assert (unknown.status_code, error(unknown)["class"]) == (404, "Unknown")
    wrong = http.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    other = http.post("/models/other/predict", content=GOOD, headers=JPEG)
    assert other.status_code == 404
    assert "tiny" in error(other)["hint"]


def test_a_request_id_comes_back_and_into_the_log(http: httpx2.Client, served: Served) -> None:
    answer = http.post("/predict", content=GOOD, headers={"X-Request-ID": "frame-17", **JPEG})
    assert answer.headers["x-request-id"] == "frame-17"
    served.until(lambda: any(line.get("id") == "frame-17" for line in served.log))
    line = next(line for line in served.log if line.get("id") == "frame-17")
    assert (line["event"], line["status"], line["model"]) == ("request", 200, "tiny")
    assert {"queue_ms", "read_ms", "infer_ms", "encode_ms"} <= set(line)


def infer(http: httpx2.Client, tensor: dict[str, Any], **more: Any) -> httpx2.Response:
    return http.post("/v2/models/tiny/infer", json={"inputs": [tensor], **more})


def test_the_inference_protocol_says_what_it_has(http: httpx2.Client) -> None:
    assert http.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    found = http.get("/v2/models/tiny").json()
    assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1]}]
    assert [each["name"] for each in found["outputs"]] == ["boxes", "scores", "class_ids", "labels"]
    missing = http.get("/v2/models/none")
    assert missing.status_code == 404
    assert isinstance(missing.json()["error"], str)


def test_tensors_in_json_are_those_of_the_result(http: httpx2.Client) -> None:
    found = http.post("/predict", content=GOOD, headers=JPEG).json()["detections"]
    encoded = base64.b64encode(GOOD).decode()
    for tensor in (
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]},
        {"name": "image", "datatype": "UINT8", "shape": [len(GOOD)], "data": list(GOOD)},
    ):
        answer = infer(http, tensor, id="7").json()
        outputs = {each["name"]: each for each in answer["outputs"]}
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1.0", "7")
        assert outputs["boxes"]["shape"] == [2, 4]
        assert outputs["boxes"]["data"] == [side for each in found for side in each["box"]]
        assert outputs["labels"]["data"] == [each["label"] for each in found]
    only = infer(http, tensor, outputs=[{"name": "scores"}], parameters={"score": 1}).json()
    assert [each["name"] for each in only["outputs"]] == ["scores"]


@pytest.mark.parametrize("datatype", ["BYTES", "UINT8"])
def test_tensors_travel_in_binary(http: httpx2.Client, datatype: str) -> None:
    found = http.post("/predict", content=GOOD, headers=JPEG).json()["detections"]
    data = struct.pack("<I", len(GOOD)) + GOOD if datatype == "BYTES" else GOOD
    tensor = {"name": "image", "datatype": datatype, "shape": [1 if datatype == "BYTES" else len(GOOD)]}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answer = http.post("/v2/models/tiny/infer", content=head + data, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    outputs, at = json.loads(answer.content[:length])["outputs"], length
    parts = {}
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        parts[output["name"]] = answer.content[at : at + size]
        at += size
    assert at == len(answer.content)
    assert np.frombuffer(parts["boxes"], "<f4").tolist() == [side for each in found for side in each["box"]]
    assert np.frombuffer(parts["class_ids"], "<i8").tolist() == [each["class_id"] for each in found]
    assert parts["labels"] == b"".join(struct.pack("<I", len(each["label"])) + each["label"].encode() for each in found)


@pytest.mark.parametrize(
    "request_",
    [
        b"", b"{", b"[]", b'{"inputs": []}',
        b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["aa=="]}]}',
        b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [1]}]}',
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["no base64!"]}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2], "data": [1]}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1], "data": [999]}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 4}}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1], "data": [1]}], "outputs": [{"name": "y"}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1], "data": [1]}], "parameters": {"score": 3}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_wrong_inference_request_is_told(http: httpx2.Client, request_: bytes) -> None:
    answer = http.post("/v2/models/tiny/infer", content=request_)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_deepaas_lists_describes_and_predicts(http: httpx2.Client) -> None:
    (listed,) = http.get("/v2/models/").json()["models"]
    alone = http.get("/v2/models/tiny/").json()
    assert listed == alone
    assert (alone["id"], alone["links"]) == ("tiny", [{"rel": "self", "href": "/v2/models/tiny"}])
    arguments = {"conf": "0.6", "iou": "0.3", "imgsz": "[704, 512]", "task_type": "det", "show_labels": "true"}
    for field in ("files", "data"):
        answer = http.post("/v2/models/tiny/predict/", files={field: ("a.png", GOOD)}, params=arguments).json()
        assert answer["status"] == "OK"
        assert answer["predictions"]["input"]["name"] == "a.png"
        assert answer["predictions"]["parameters"]["score"] == 0.6
        assert len(answer["predictions"]["detections"]) == 2
    for settings in ({"params": {"accept": "image/png"}}, {"headers": {"Accept": "image/png"}}):
        drawn = http.post("/v2/models/tiny/predict/", files={"files": ("a.png", GOOD)}, **settings)  # type: ignore[arg-type]
        assert drawn.content.startswith(b"\x89PNG")
    for wrong in ({"conf": "2"}, {"task_type": "seg"}, {"augment": "true"}, {"nonsense": "1"}):
        refused = http.post("/v2/models/tiny/predict/", files={"files": ("a.png", GOOD)}, params=wrong)
        assert refused.status_code == 400
        assert next(iter(wrong)) in error(refused)["message"]


def test_the_openapi_document_is_true_to_the_routes(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        address = path.replace("{model}", "tiny")
        for method in ("get", "post"):
            answer = http.request(method, address, content=b"")
            if method not in operations:
                assert answer.status_code == 405, path
                continue
            operation = operations[method]
            assert str(answer.status_code) in operation["responses"], (path, answer.status_code)
            if answer.status_code == 200:
                given = operation["responses"]["200"]["content"]
                assert answer.headers["content-type"].partition(";")[0] in given
            named = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
            if "requestBody" in operation:
                refused = http.request(method, address, params={"no-such-parameter": "1"}, content=b"")
                assert refused.status_code == 400
                told = json.dumps(refused.json(), ensure_ascii=False)
                assert all(name in told for name in named), path


def test_metrics_can_be_read_and_count_what_happened(http: httpx2.Client, served: Served) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    before = served.metric("nv_inference_request_success", model="tiny")
    http.post("/predict", content=GOOD, headers=JPEG)
    http.post("/predict", content=b"bad", headers=JPEG)
    assert served.metric("nv_inference_request_success", model="tiny") == before + 1
    assert served.metric("buoy_refused_total", reason="InputError") >= 1
    names = {family.name for family in parser.text_string_to_metric_families(http.get("/metrics").text)}
    assert {"nv_inference_queue_duration_us", "nv_inference_pending_request_count", "buoy_request_seconds"} <= names
    assert served.metric("buoy_callers", model="tiny") >= 1


def test_several_models_are_told_apart(tmp_path: Path) -> None:
    first, second = make_model(tmp_path, "first"), make_model(tmp_path, "second", classes=["pale", "red"])
    with serving(tmp_path, first, second) as served, served.client() as http:
        for name, label in (("first", "bright"), ("second", "pale")):
            found = http.post(f"/models/{name}/predict", content=GOOD, headers=JPEG).json()
            assert (found["model"]["name"], found["detections"][0]["label"]) == (name, label)
        unnamed = http.post("/predict", content=GOOD, headers=JPEG)
        assert unnamed.status_code == 400
        assert "first, second" in error(unnamed)["hint"]
        assert [each["id"] for each in http.get("/v2/models/").json()["models"]] == ["first", "second"]


@pytest.mark.parametrize("rewrite_target", [True, False])
def test_it_runs_below_oscars_path_however_the_ingress_rewrites(
    tmp_path: Path, model: Path, rewrite_target: bool
) -> None:
    base = "/system/services/tiny-live/exposed"
    env = {"OSCAR_SERVICE_BASE_PATH": base, "OSCAR_SERVICE_TOKEN": "a-service-token", "OSCAR_SERVICE_NAME": "tiny-live"}
    with serving(tmp_path, model, **env) as served, httpx2.Client() as http:
        assert served.url.endswith(base)
        root = served.url if rewrite_target else served.url.removesuffix(base)
        assert http.get(f"{root}/").status_code == 200
        assert http.get(f"{root}/v2/health/ready").status_code == 200
        assert http.get(f"{root}/metrics").status_code == 401
        auth = ("tiny-live", "a-service-token")
        assert http.post(f"{root}/predict", content=GOOD, headers=JPEG, auth=auth).status_code == 200
        assert http.get(f"{root}/openapi.json", auth=auth).json()["servers"] == [{"url": base}]
        (listed,) = http.get(f"{root}/v2/models/", auth=auth).json()["models"]
        assert listed["links"][0]["href"] == f"{base}/v2/models/tiny"


def test_without_the_token_only_probes_are_answered(tmp_path: Path, model: Path) -> None:
    (tmp_path / "token").write_text("correct-horse\n")
    with serving(tmp_path, model, options=("--token-file", str(tmp_path / "token"))) as served, served.client() as http:
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert http.get(path).status_code == 200
        routes = [("POST", "/predict"), ("POST", "/v2/models/tiny/infer"), ("POST", "/v2/models/tiny/predict/"),
                  ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/v2/models/"), ("GET", "/x")]  # fmt: skip
        for method, path in routes:
            for auth in (None, ("tiny", "wrong"), ("other", "correct-horse")):
                refused = http.request(method, path, auth=auth)
                assert refused.status_code == 401, path
                assert refused.headers["www-authenticate"].startswith("Basic")
                assert error(refused)["class"] == "Denied"
            bearer = {"Authorization": "Bearer correct-horse"}
            assert http.request(method, path, headers=bearer).status_code != 401
            assert http.request(method, path, auth=("tiny", "correct-horse")).status_code != 401


def test_it_refuses_to_be_open_to_others(model: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("buoy")), "serve", str(model), "--host", "0.0.0.0", "--port", "0"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "without a token is refused" in ended.stderr


def test_a_model_that_cannot_be_loaded_ends_it_with_the_reason(tmp_path: Path) -> None:
    home = make_model(tmp_path)
    (home / "tiny.onnx").write_bytes(b"altered")
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("buoy")), "serve", str(home), "--port", "0"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "the sha256 is" in ended.stderr


def test_a_certificate_for_development_speaks_tls(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, model, options=("--tls", "self")) as served:
        assert served.url.startswith("https://")
        with served.client(verify=False) as http:
            assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200


def test_memory_when_ready_stays_within_its_budget(tmp_path: Path) -> None:
    with serving(tmp_path, CHECKOUT / "functions" / "obsea-fish") as served:
        resident_kib = 0
        for pid in (served.process.pid, *served.children):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            resident_kib += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    assert resident_kib <= 190 * 1024
