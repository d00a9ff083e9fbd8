"""The calls of the protocol, and what happens around each: access, refusals, the log.

A picture is asked for by `ModelInfer`, which is served as a stream of requests with one in it (the same bytes on
the wire): so access and room in the queue are checked before the picture is received, as over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import IO, Any

import grpc

from buoy import __version__
from buoy.errors import BuoyError, UsageError
from buoy.serve import tensors
from buoy.serve.account import Account
from buoy.serve.refusals import NotReady, TooSlow, status_of
from buoy.serve.remote import Looker, Question
from buoy.serve.rpc import convert
from buoy.serve.rpc.messages import SERVICE, message
from buoy.serve.service import Service
from buoy.serve.upload import spooled

__all__ = ["Calls"]

_Context = Any
#: Answered without a token, as the same questions over HTTP.
_OPEN = ("ServerLive", "ServerReady")
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND, 408: grpc.StatusCode.DEADLINE_EXCEEDED, 409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED, 415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT, 429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip
_MOST_DEADLINE_S = 3600.0


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """All calls of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        simple: dict[str, Callable[[Any], Any]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
        }
        self._handlers = {f"/{SERVICE}/{name}": self._simple(name, answer) for name, answer in simple.items()}
        self._handlers[f"/{SERVICE}/ModelInfer"] = grpc.stream_unary_rpc_method_handler(
            self._around("ModelInfer", self._infer),
            request_deserializer=message("ModelInferRequest").FromString,
            response_serializer=message("ModelInferResponse").SerializeToString,
        )

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call; `None` for one that there is not."""
        return self._handlers.get(handler_call_details.method)

    def _simple(self, name: str, answer: Callable[[Any], Any]) -> Any:
        async def call(request: Any, context: _Context) -> Any:
            return answer(request)

        return grpc.unary_unary_rpc_method_handler(
            self._around(name, call),
            request_deserializer=message(f"{name}Request").FromString,
            response_serializer=message(f"{name}Response").SerializeToString,
        )

    def _around(
        self, name: str, call: Callable[[Any, _Context], Awaitable[Any]]
    ) -> Callable[[Any, _Context], Awaitable[Any]]:
        async def around(request: Any, context: _Context) -> Any:
            service, said = self._service, _metadata(context)
            account = Account(service.metrics, service.tracing, "gRPC", f"/{SERVICE}/{name}", said)
            account.route, code = f"/{SERVICE}/{name}", grpc.StatusCode.OK
            try:
                await context.send_initial_metadata((("x-request-id", account.id),))
                if name not in _OPEN:
                    await service.access.admit(said, _address(context))
                return await call(request, context)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                told = account.refused(error)
                code = _CODES.get(status_of(told), grpc.StatusCode.INTERNAL)
                await context.abort(code, str(told)[:1000], _trailing(told))
            finally:
                account.close(code.name, quiet=name in _OPEN and code is grpc.StatusCode.OK)

        return around

    def _server_live(self, request: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    def _server_ready(self, request: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._service.ready)

    def _model_ready(self, request: Any) -> Any:
        looker = self._service.find(request.name or None, request.version)
        return message("ModelReadyResponse")(ready=looker.ready and not self._service.draining)

    def _server_metadata(self, request: Any) -> Any:
        return message("ServerMetadataResponse")(name="buoy", version=__version__)

    def _model_metadata(self, request: Any) -> Any:
        looker = self._service.find(request.name or None, request.version)
        if not looker.about:
            raise NotReady(f"the model {looker.name} is being loaded", "try again in a second")
        return message("ModelMetadataResponse")(**tensors.metadata(looker))

    async def _infer(self, requests: Any, context: _Context) -> Any:
        remaining_s = context.time_remaining()
        deadline_s = self._service.deadline_s if remaining_s is None else min(remaining_s, _MOST_DEADLINE_S)
        if len(self._service.lookers) == 1:  # else the request itself tells which
            self._service.admit(self._service.lookers[0], deadline_s)
        looker, id_, wanted, picture = await self._receive(context, deadline_s)
        with picture:
            question = Question(picture, wanted.name, "json", wanted.thresholds, deadline_s)
            answer = await self._service.look(looker, question)
        found = json.loads(answer.body)["detections"]
        return convert.answered(looker.name, answer.version, id_, wanted, found)

    async def _receive(self, context: _Context, deadline_s: float) -> tuple[Looker, str, convert.Asked, IO[bytes]]:
        """The request, and its picture beside it: the message itself is in memory no longer than this takes."""
        uploads = self._service.uploads
        with uploads.slot():
            try:
                async with asyncio.timeout(uploads.limits.whole_s):
                    request = await context.read()  # the iterator would keep what it gave
            except TimeoutError:
                raise TooSlow("the request did not come in time", "send it faster, or a smaller picture") from None
        if request is grpc.aio.EOF:
            raise UsageError("the call has no request", "send one ModelInferRequest")
        looker = self._service.find(request.model_name or None, request.model_version)
        self._service.admit(looker, deadline_s)
        wanted = convert.asked(request)
        if len(wanted.picture) > uploads.limits.size_bytes:
            raise uploads.limits.too_large()
        return looker, request.id, wanted._replace(picture=b""), spooled(wanted.picture)


def _metadata(context: _Context) -> dict[bytes, bytes]:
    said = context.invocation_metadata() or ()
    return {key.encode(): value if isinstance(value, bytes) else value.encode() for key, value in said}


def _address(context: _Context) -> str:
    """Of `ipv4:192.0.2.1:1234` or `ipv6:%5B::1%5D:1234` the part that names the machine."""
    return str(context.peer()).partition(":")[2].rpartition(":")[0]


def _trailing(error: BuoyError) -> tuple[tuple[str, str], ...]:
    """Beside the status: our class of the error, and when to try again, as clients of gRPC look for it."""
    said = (("buoy-error", error.record()["class"]),)
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if retry_after_s is None:
        return said
    return (*said, ("grpc-retry-pushback-ms", str(math.ceil(retry_after_s * 1000))))
