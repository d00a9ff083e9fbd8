"""Traces for OpenTelemetry: a span for each request, and within it queue, decode, inference and post.

On only where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) says where they go; the other variables of the
standard hold too, such as `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_TRACES_SAMPLER`. Spans are sent
in batches by a thread, from a queue that is bounded: a receiver that is slow or gone costs traces, never requests.
Names of attributes are those of the semantic conventions where they have one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context

from buoy import __version__

__all__ = ["Tracing"]

_CARRIED = (b"traceparent", b"tracestate", b"baggage")
#: For what has not been sent when the service ends.
_LAST_S = 3.0


class Tracing:
    """The way to the receiver."""

    def __init__(self) -> None:
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "buoy"}
        self._provider = TracerProvider(
            resource=Resource.create({**named, "service.version": __version__}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("buoy", __version__)

    def begin(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> _Span:
        """A request has come; its headers may say to which trace it belongs."""
        carrier = {key.decode(): headers[key].decode("latin-1") for key in _CARRIED if key in headers}
        return _Span(self._tracer, carrier, method, path)

    def close(self) -> None:
        """Send what is left, but do not wait long for a receiver that does not take it."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_LAST_S)


class _Span:
    """The span of one request."""

    def __init__(self, tracer: Tracer, carrier: dict[str, str], method: str, path: str) -> None:
        self._tracer = tracer
        self._method = method
        attributes = {"url.path": path} if method != "gRPC" else {"rpc.system": "grpc", "rpc.method": path}
        if method not in ("gRPC", "WebSocket"):
            attributes["http.request.method"] = method
        self._span = tracer.start_span(method, extract(carrier), SpanKind.SERVER, attributes)
        context = self._span.get_span_context()
        #: For the log.
        self.ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def looked(self, model: str, began_ns: int, spent: Mapping[str, float]) -> None:
        """One span for each part of looking at a picture, one after the other."""
        context, at_ns = set_span_in_context(self._span), began_ns
        after_ms = spent["total_ms"] - spent["read_ms"] - spent["infer_ms"] + spent["encode_ms"]
        parts: tuple[tuple[str, float, dict[str, float]], ...] = (
            ("queue", spent["queue_ms"], {}),
            ("decode", spent["read_ms"], {}),
            ("inference", spent["infer_ms"], {"buoy.batch": spent.get("batch", 1)}),
            ("post", max(0.0, after_ms), {}),
        )
        for name, ms, more in parts:
            span = self._tracer.start_span(name, context, attributes={"buoy.model": model, **more}, start_time=at_ns)
            at_ns += int(ms * 1e6)
            span.end(at_ns)

    def end(self, route: str, status: int | str, error: str) -> None:
        """The answer is out."""
        self._span.update_name(f"{self._method} {route}" if self._method != "gRPC" else route.lstrip("/"))
        attributes: dict[str, Any] = {"http.route": route, "http.response.status_code": status}
        if self._method == "gRPC":
            attributes = {"rpc.grpc.status": status}
        if error:
            attributes["error.type"] = error
        self._span.set_attributes(attributes)
        if (isinstance(status, int) and status >= 500) or status in ("INTERNAL", "UNAVAILABLE"):
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()
