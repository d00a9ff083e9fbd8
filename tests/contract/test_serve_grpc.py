"""The Open Inference Protocol with its public client, over gRPC and over HTTP, against a real service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.issuer import AUDIENCE, issuer
from support.need import CHECKOUT
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
TOKEN = "correct-horse"
BEARER = {"authorization": f"Bearer {TOKEN}"}
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = ("--grpc-port", "0", "--max-upload", "8", "--max-wait", "30", "--callers", "1")
    with serving(tmp_path_factory.mktemp("serve"), model, options=options) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        yield client


@pytest.fixture
def stub(served: Served) -> Iterator[Any]:
    with grpc.insecure_channel(served.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def heavy() -> bytes:
    """A picture that keeps a lane busy for a while: 12 megapixels of noise."""
    noise = np.random.default_rng(1).integers(0, 255, (3000, 4000, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes()


def inputs(of: Any, datatype: str, data: bytes = GOOD, **how: Any) -> list[Any]:
    tensor = of.InferInput("image", [1 if datatype == "BYTES" else len(data)], datatype)
    values: Any = np.array([data], np.object_) if datatype == "BYTES" else np.frombuffer(data, np.uint8)
    tensor.set_data_from_numpy(values, **how)
    return [tensor]


def request(data: bytes = GOOD, **more: Any) -> Any:
    asked = service_pb2.ModelInferRequest(model_name="tiny", raw_input_contents=[data], **more)
    asked.inputs.add(name="image", datatype="UINT8", shape=[len(data)])
    return asked


def expected(served: Served) -> list[dict[str, Any]]:
    with served.client() as http:
        found: list[dict[str, Any]] = http.post("/predict", content=GOOD, headers={"Content-Type": "image/png"}).json()[
            "detections"
        ]
    return found


def same(result: Any, found: list[dict[str, Any]]) -> None:
    assert result.as_numpy("boxes").tolist() == [each["box"] for each in found]
    assert result.as_numpy("scores") == pytest.approx([each["score"] for each in found])
    assert result.as_numpy("class_ids").tolist() == [each["class_id"] for each in found]
    labels = result.as_numpy("labels").tolist()
    assert [each.decode() if isinstance(each, bytes) else each for each in labels] == [each["label"] for each in found]


def code_of(call: Any) -> tuple[Any, str, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as told:
        call()
    error: Any = told.value
    return error.code(), error.details(), {key: value for key, value in error.trailing_metadata() or ()}


def test_the_compiled_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    subprocess.run([CHECKOUT / "scripts" / "proto", tmp_path / "inference.pb"], check=True)
    made = (tmp_path / "inference.pb").read_bytes()
    assert (CHECKOUT / "src" / "buoy" / "serve" / "rpc" / "inference.pb").read_bytes() == made, "run scripts/proto"


def test_the_messages_have_the_numbers_of_the_public_protocol() -> None:
    compiled = (CHECKOUT / "src" / "buoy" / "serve" / "rpc" / "inference.pb").read_bytes()
    (ours,) = descriptor_pb2.FileDescriptorSet.FromString(compiled).file
    theirs = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)

    def fields(messages: Any, prefix: str = "") -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for each in messages:
            name = f"{prefix}.{each.name}"
            found[name] = ()
            for field in each.field:
                oneof = field.HasField("oneof_index")
                found[f"{name}.{field.name}"] = (field.number, field.type, field.label, field.type_name, oneof)
            found |= fields(each.nested_type, name)
        return found

    assert (ours.package, ours.syntax) == (theirs.package, theirs.syntax)
    public = fields(theirs.message_type)
    for name, facts in fields(ours.message_type).items():
        assert public[name] == facts, name
    calls = {each.name: (each.input_type, each.output_type) for each in theirs.service[0].method}
    assert ours.service[0].name == theirs.service[0].name
    for call in ours.service[0].method:
        assert calls[call.name] == (call.input_type, call.output_type)


def test_the_public_client_finds_what_it_asks_for_over_both(served: Served, client: Any) -> None:
    with tritonclient.http.InferenceServerClient(served.url.partition("://")[2]) as http:
        for each in (client, http):
            assert each.is_server_live()
            assert each.is_server_ready()
            assert each.is_model_ready("tiny")
            assert each.is_model_ready("tiny", "1.0")
            assert not each.is_model_ready("tiny", "2.0") if each is http else True
        told = client.get_model_metadata("tiny", as_json=True)
        over_http = http.get_model_metadata("tiny")
        assert told["outputs"] == [{**each, "shape": list(map(str, each["shape"]))} for each in over_http["outputs"]]
        assert told["name"] == over_http["name"]
        assert told["versions"] == over_http["versions"]
        assert client.get_server_metadata(as_json=True)["name"] == http.get_server_metadata()["name"]


@pytest.mark.parametrize("datatype", ["UINT8", "BYTES"])
def test_the_public_client_gets_the_same_tensors_over_both(served: Served, client: Any, datatype: str) -> None:
    found = expected(served)
    over_grpc = client.infer("tiny", inputs(tritonclient.grpc, datatype), request_id="7", model_version="1.0")
    same(over_grpc, found)
    answer = over_grpc.get_response()
    assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1.0", "7")
    with tritonclient.http.InferenceServerClient(served.url.partition("://")[2]) as http:
        for binary in (True, False):
            wanted = [tritonclient.http.InferRequestedOutput(name, binary_data=binary)
                      for name in ("boxes", "scores", "class_ids", "labels")]  # fmt: skip
            binary_in = {"binary_data": binary} if datatype == "UINT8" else {}
            tensor = inputs(tritonclient.http, datatype, **binary_in)
            same(http.infer("tiny", tensor, model_version="1.0", outputs=wanted), found)
        same(http.infer("tiny", inputs(tritonclient.http, datatype)), found)


def test_thresholds_and_outputs_are_those_of_the_request(client: Any) -> None:
    one = [tritonclient.grpc.InferRequestedOutput("scores")]
    result = client.infer("tiny", inputs(tritonclient.grpc, "UINT8"), outputs=one, parameters={"score": 1.0})
    assert result.as_numpy("boxes") is None
    assert [each.name for each in result.get_response().outputs] == ["scores"]


def test_contents_may_stand_in_the_message(served: Served, stub: Any) -> None:
    found = expected(served)
    small, one = service_pb2.ModelInferRequest(), service_pb2.ModelInferRequest()
    contents = service_pb2.InferTensorContents(uint_contents=list(GOOD))
    small.inputs.add(name="image", datatype="UINT8", shape=[len(GOOD)], contents=contents)
    one.inputs.add(name="image", datatype="BYTES", shape=[1], contents={"bytes_contents": [GOOD]})
    for asked in (small, one):  # without a name: the only model
        answer = stub.ModelInfer(asked)
        assert not answer.raw_output_contents
        outputs = {each.name: each for each in answer.outputs}
        assert list(outputs["boxes"].contents.fp32_contents) == [side for each in found for side in each["box"]]
        assert list(outputs["labels"].contents.bytes_contents) == [each["label"].encode() for each in found]


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (Code.INVALID_ARGUMENT, lambda asked: asked.ClearField("inputs")),
        (Code.INVALID_ARGUMENT, lambda asked: asked.inputs.add()),
        (Code.INVALID_ARGUMENT, lambda asked: asked.ClearField("raw_input_contents")),
        (Code.INVALID_ARGUMENT, lambda asked: asked.raw_input_contents.append(b"x")),
        (Code.INVALID_ARGUMENT, lambda asked: setattr(asked.inputs[0], "name", "x")),
        (Code.INVALID_ARGUMENT, lambda asked: setattr(asked.inputs[0], "datatype", "FP32")),
        (Code.INVALID_ARGUMENT, lambda asked: setattr(asked.inputs[0], "datatype", "BYTES")),
        (Code.INVALID_ARGUMENT, lambda asked: asked.inputs[0].shape.append(1)),
        (Code.INVALID_ARGUMENT, lambda asked: asked.outputs.add(name="y")),
        (Code.INVALID_ARGUMENT, lambda asked: setattr(asked.parameters["score"], "double_param", 2)),
        (Code.INVALID_ARGUMENT, lambda asked: setattr(asked.parameters["iou"], "bool_param", True)),
        (Code.INVALID_ARGUMENT, lambda asked: asked.parameters["iou"]),
        (Code.INVALID_ARGUMENT, lambda asked: setattr(asked, "id", "x" * 600)),
        (Code.NOT_FOUND, lambda asked: setattr(asked, "model_name", "other")),
        (Code.NOT_FOUND, lambda asked: setattr(asked, "model_version", "9")),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told(stub: Any, code: Any, change: Any) -> None:
    asked = request()
    change(asked)
    told, details, trailing = code_of(lambda: stub.ModelInfer(asked))
    assert told == code, details
    assert details
    assert trailing["buoy-error"] in ("UsageError", "Unknown")


def test_bad_pictures_and_large_ones_are_refused_and_others_go_on(stub: Any) -> None:
    for data in (b"", b"text", GOOD[:60], b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        code, details, trailing = code_of(lambda data=data: stub.ModelInfer(request(data)))
        assert code == Code.INVALID_ARGUMENT, details
        assert trailing["buoy-error"] == "InputError"
    for size, says in ((8 << 20) + 1000, "--max-upload"), (9 << 20, "larger than max"):
        code, details, _ = code_of(lambda size=size: stub.ModelInfer(request(bytes(size))))
        assert code == Code.RESOURCE_EXHAUSTED
        assert says in details
    assert stub.ModelInfer(request()).outputs
    code, _, _ = code_of(lambda: stub.ModelStreamInfer(iter([request()])).next())
    assert code == Code.UNIMPLEMENTED


def test_a_call_without_a_request_is_told(served: Served) -> None:
    with grpc.insecure_channel(served.grpc) as channel:
        ask = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        code, details, _ = code_of(lambda: ask(iter(())))
    assert code == Code.INVALID_ARGUMENT
    assert "no request" in details


def test_ids_come_back_and_into_the_log_and_calls_are_counted(served: Served, stub: Any) -> None:
    before = served.metric("nv_inference_request_success", model="tiny")
    answer, call = stub.ModelInfer.with_call(request(), metadata=(("x-request-id", "frame-18"),))
    assert answer.outputs
    assert dict(call.initial_metadata())["x-request-id"] == "frame-18"
    served.until(lambda: any(line.get("id") == "frame-18" for line in served.log))
    line = next(line for line in served.log if line.get("id") == "frame-18")
    assert (line["method"], line["status"], line["model"]) == ("gRPC", "OK", "tiny")
    assert {"queue_ms", "read_ms", "infer_ms", "encode_ms"} <= set(line)
    assert served.metric("nv_inference_request_success", model="tiny") == before + 1
    assert served.metric("buoy_requests_total", method="gRPC", status="OK") >= 1


def test_what_its_client_no_longer_waits_for_is_not_looked_at(served: Served, stub: Any, heavy: bytes) -> None:
    def looked_at() -> float:
        return served.metric("nv_inference_count")

    before, gone = looked_at(), served.metric("nv_inference_request_failure", reason="ClientDisconnect")
    with served.held():
        running = [stub.ModelInfer.future(request(heavy)) for _ in range(4)]
        served.until(lambda: served.metric("nv_inference_pending_request_count") >= 4)
        late = [stub.ModelInfer.future(request(), timeout=0.001 * at + 0.02) for at in range(10)]
        left = [stub.ModelInfer.future(request()) for _ in range(10)]
        served.until(lambda: served.metric("nv_inference_pending_request_count") >= 10)
        for call in left:
            call.cancel()
        for call in late:
            assert call.code() in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
        served.until(lambda: served.metric("nv_inference_pending_request_count") == 4)
    assert all(call.result().outputs for call in running)
    served.until(lambda: served.metric("nv_inference_pending_request_count") == 0)
    assert looked_at() - before <= 4 + 3  # and at most those that a lane had already begun with
    assert served.metric("nv_inference_request_failure", reason="ClientDisconnect") > gone


def test_too_many_are_told_when_to_come_back(tmp_path: Path, model: Path, heavy: bytes) -> None:
    options = ("--grpc-port", "0", "--callers", "1", "--max-wait", "0.05")
    with serving(tmp_path, model, options=options) as served, grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(request(heavy))  # from now on a turn has been measured
        calls = [stub.ModelInfer.future(request(heavy)) for _ in range(16)]
        codes = {call.code() for call in calls}
        assert codes == {Code.OK, Code.RESOURCE_EXHAUSTED}
        refused = next(call for call in calls if call.code() != Code.OK)
        trailing = dict(refused.trailing_metadata())
        assert int(trailing["grpc-retry-pushback-ms"]) >= 1
        assert trailing["buoy-error"] == "BusyError"


def test_a_crash_fails_its_calls_and_the_next_one_is_answered(served: Served, stub: Any, heavy: bytes) -> None:
    (child,) = served.children
    with served.held():
        calls = [stub.ModelInfer.future(request(heavy)) for _ in range(6)]
        served.until(lambda: served.metric("nv_inference_pending_request_count") >= 6)
        os.kill(child, signal.SIGKILL)
    failed = [call for call in calls if call.code() != Code.OK]
    assert 1 <= len(failed) <= 3
    assert {call.code() for call in failed} == {Code.INTERNAL}
    assert "SIGKILL" in failed[0].details()
    assert stub.ModelInfer(request()).outputs


def test_what_was_accepted_is_answered_before_it_ends(tmp_path: Path, model: Path, heavy: bytes) -> None:
    options = ("--grpc-port", "0", "--max-wait", "30")
    with serving(tmp_path, model, options=options) as served, grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with served.held():
            calls = [stub.ModelInfer.future(request(heavy)) for _ in range(8)]
            served.until(lambda: served.metric("nv_inference_pending_request_count") >= 8)
        assert served.stop() == 0
        assert [call.code() for call in calls] == [Code.OK] * 8
        code, _, _ = code_of(lambda: stub.ModelInfer(request()))
        assert code == Code.UNAVAILABLE


def test_only_callers_with_a_token_are_answered_over_tls_too(tmp_path: Path, model: Path) -> None:
    with issuer() as provider:
        options = ("--grpc-port", "0", "--tls", "self", "--oidc-issuer", provider.url, "--oidc-audience", AUDIENCE)
        with serving(tmp_path, model, options=(*options, "--rate", "9/h"), BUOY_TOKEN=TOKEN) as served:
            certificate = trusted(served)
            host = f"localhost:{served.grpc.rpartition(':')[2]}"
            with grpc.secure_channel(host, grpc.ssl_channel_credentials(certificate)) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
                for bad in ("", "wrong", provider.token(aud="x")):
                    said = (("authorization", f"Bearer {bad}"),) if bad else ()
                    for ask in (
                        lambda said: stub.ModelInfer(request(), metadata=said),
                        lambda said: stub.ModelMetadata(service_pb2.ModelMetadataRequest(), metadata=said),
                    ):
                        code, _, trailing = code_of(lambda ask=ask, said=said: ask(said))
                        assert (code, trailing["buoy-error"]) == (Code.UNAUTHENTICATED, "Denied")
                assert stub.ModelInfer(request(), metadata=tuple(BEARER.items())).outputs
                own = (("authorization", f"Bearer {provider.token()}"),)
                for _ in range(9):
                    assert stub.ModelInfer(request(), metadata=own).outputs
                code, _, trailing = code_of(lambda: stub.ModelInfer(request(), metadata=own))
                assert (code, trailing["buoy-error"]) == (Code.RESOURCE_EXHAUSTED, "TooOften")


def trusted(served: Served) -> bytes:
    """The certificate that the service shows."""
    import ssl

    return ssl.get_server_certificate(served.address).encode()


def test_many_threads_get_their_own_answers(served: Served, stub: Any) -> None:
    pictures = [png(picture_with_squares(*((row, column) for column in range(count))))
                for row in range(4) for count in range(1, 5)]  # fmt: skip
    barrier = threading.Barrier(8)

    def ask(at: int) -> None:
        barrier.wait()
        for number in range(at, len(pictures), 4):
            answer = stub.ModelInfer(request(pictures[number], id=str(number)))
            assert answer.id == str(number)
            boxes = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 4)
            assert len(boxes) == number % 4 + 1
            assert set(boxes[:, 1]) == {number // 4 * 16.0}

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(ask, range(8)))


def test_a_port_that_is_taken_ends_it_with_the_reason(served: Served, model: Path) -> None:
    port = served.grpc.rpartition(":")[2]
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("buoy")), "serve", str(model), "--port", "0", "--grpc-port", port],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "--grpc-port" in ended.stderr
