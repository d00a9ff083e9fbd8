"""Traces of requests, received by a real receiver; and the log that names them."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.otlp import Receiver, receiver
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def mapped(served: Served) -> str:
    """The files of the process, among them protobuf's library if it is loaded."""
    return Path(f"/proc/{served.process.pid}/maps").read_text()


def of_trace(received: Receiver, trace: str) -> dict[str, Any]:
    return {span.name: span for span in received.spans if span.trace_id.hex() == trace}


def test_a_request_is_a_span_of_its_callers_trace_with_its_parts_inside(tmp_path: Path, model: Path) -> None:
    with receiver() as received:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_SERVICE_NAME": "fish-live",
               "OTEL_EXPORTER_OTLP_HEADERS": "x-key=k1"}  # fmt: skip
        began_ns = time.time_ns()
        with serving(tmp_path, model, options=("--grpc-port", "0"), **env) as served:
            with served.client() as http:
                ids = {"traceparent": TRACEPARENT, "x-request-id": "frame-19"}
                assert http.post("/predict", content=GOOD, headers={**JPEG, **ids}).status_code == 200
                assert http.post("/predict", content=b"bad", headers=JPEG).status_code == 422
                assert "_upb" in mapped(served)
                assert http.get("/no/such", headers={"traceparent": "nonsense"}).status_code == 404
            with grpc.insecure_channel(served.grpc) as channel:
                asked = service_pb2.ModelInferRequest(raw_input_contents=[GOOD])
                asked.inputs.add(name="image", datatype="UINT8", shape=[len(GOOD)])
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert stub.ModelInfer(asked, metadata=(("traceparent", TRACEPARENT.replace("0af7", "1af7")),)).outputs
            assert served.stop() == 0  # sends what is left
        spans = of_trace(received, TRACE)
        assert set(spans) == {"POST /predict", "queue", "decode", "inference", "post"}
        request = spans["POST /predict"]
        assert request.parent_span_id.hex() == PARENT
        assert request.kind == 2  # server
        said = attributes(request)
        assert (said["http.route"], said["http.response.status_code"]) == ("/predict", 200)
        assert began_ns <= request.start_time_unix_nano < request.end_time_unix_nano
        before = request.start_time_unix_nano
        for name in ("queue", "decode", "inference", "post"):
            part = spans[name]
            assert part.parent_span_id == request.span_id
            assert attributes(part)["buoy.model"] == "tiny"
            assert before <= part.start_time_unix_nano <= part.end_time_unix_nano
            before = part.end_time_unix_nano
        assert spans["inference"].end_time_unix_nano > spans["inference"].start_time_unix_nano
        over_grpc = of_trace(received, TRACE.replace("0af7", "1af7"))
        assert set(over_grpc) == {"inference.GRPCInferenceService/ModelInfer", "queue", "decode", "inference", "post"}
        refused = next(span for span in received.spans if attributes(span).get("error.type") == "InputError")
        assert attributes(refused)["http.response.status_code"] == 422
        assert refused.status.code == 0  # the sender's fault is no fault of the service
        assert any(span.name == "GET other" for span in received.spans)
        assert {"service.name": "fish-live"}.items() <= received.resources[0].items()
        assert received.headers[0]["x-key"] == "k1"
        line = next(line for line in served.log if line.get("id") == "frame-19")
        assert (line["trace_id"], line["span_id"]) == (TRACE, request.span_id.hex())
        assert all(len(line["trace_id"]) == 32 for line in served.log if line["event"] == "request")


def test_a_receiver_that_is_gone_or_silent_costs_traces_and_no_request(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces",
               "OTEL_BSP_SCHEDULE_DELAY": "100"}  # fmt: skip
        with serving(tmp_path, model, **env) as served, served.client() as http:
            for _ in range(50):
                assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200
            assert served.stop() == 0


@pytest.mark.parametrize(
    "env", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}]
)
def test_without_being_asked_nothing_of_it_is_loaded(tmp_path: Path, model: Path, env: dict[str, str]) -> None:
    with serving(tmp_path, model, **env) as served, served.client() as http:
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200
        served.until(lambda: any(line["event"] == "request" for line in served.log))
        assert not any("trace_id" in line for line in served.log)
        assert "_upb" not in mapped(served)
