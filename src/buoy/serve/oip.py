"""The Open Inference Protocol (KServe v2) over REST, with the binary tensor extension.

The tensors are those of `buoy.serve.tensors`; BYTES in JSON are base64. `parameters` of a request may set `score`
and `iou`. Sources: the protocol's `required_api.md` and Triton's `extension_binary_data.md`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import IO, Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from buoy import __version__
from buoy.errors import UsageError
from buoy.serve import query, tensors
from buoy.serve.refusals import NotReady
from buoy.serve.remote import Looker, Question
from buoy.serve.service import Service
from buoy.serve.tensors import OUTPUTS
from buoy.serve.upload import spooled

__all__ = ["infer", "live", "metadata", "model_ready", "ready", "server"]

_HEAD_LENGTH = "inference-header-content-length"
#: What JSON calls them.
_NAMES: dict[type, str] = {dict: "object", list: "array", str: "string"}

_T = TypeVar("_T")


class _Asked(NamedTuple):
    picture: IO[bytes]
    id: str | None
    thresholds: dict[str, float]
    #: Output to whether it is wanted in binary, in the order of the answer.
    outputs: dict[str, bool]


async def server(service: Service, request: Request) -> Response:
    """What this server is."""
    query.checked(request, ())
    return JSONResponse({"name": "buoy", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(service: Service, request: Request) -> Response:
    """Whether the service runs."""
    return JSONResponse({"live": True})


async def ready(service: Service, request: Request) -> Response:
    """Whether every model answers."""
    return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)


async def metadata(service: Service, request: Request) -> Response:
    """The tensors of a model."""
    query.checked(request, ())
    looker = service.looker(request)
    if not looker.about:
        raise NotReady(f"the model {looker.name} is being loaded", "try again in a second")
    return JSONResponse(tensors.metadata(looker))


async def model_ready(service: Service, request: Request) -> Response:
    """Whether a model answers."""
    looker = service.looker(request)
    well = looker.ready and not service.draining
    return JSONResponse({"name": looker.name, "ready": well}, 200 if well else 503)


async def infer(service: Service, request: Request) -> Response:
    """Look at one picture."""
    asked_for = query.checked(request, ("deadline_ms",))
    looker = service.looker(request)
    deadline_s = query.deadline_s(request, asked_for, service.deadline_s)
    service.admit(looker, deadline_s)
    asked = await _receive(service, request)
    with asked.picture as picture:
        question = Question(picture, asked.id or "upload", "json", asked.thresholds, deadline_s)
        answer = await service.ask(request, looker, question)
    return _answer(looker, answer.version, asked, json.loads(answer.body)["detections"])


async def _receive(service: Service, request: Request) -> _Asked:
    """The request without its body, which is in memory no longer than it takes."""
    async with service.uploads.body(request) as body:
        return await asyncio.to_thread(_parse, body, request.headers.get(_HEAD_LENGTH))


def _parse(body: bytes, head_length: str | None) -> _Asked:
    """Take a request apart.

    Raises:
        UsageError: it is none.
    """
    if head_length is None:
        length = len(body)
    elif head_length.isascii() and head_length.isdecimal() and int(head_length[:12]) <= len(body):
        length = int(head_length[:12])
    else:
        raise UsageError(
            f"Inference-Header-Content-Length is {head_length[:20]!r}, the body has {len(body)} bytes",
            "give the length of the JSON in front of the binary data",
        )
    try:
        head = json.loads(body[:length])
        inputs = head["inputs"]
        (tensor,) = inputs
        parameters = _given(head, "parameters", dict) or {}
        picture = _picture(tensor, body[length:])
        binary = bool(parameters.get("binary_data_output", False))
        wanted = _given(head, "outputs", list) or [{"name": name} for name in OUTPUTS]
        outputs = {
            each["name"]: bool((_given(each, "parameters", dict) or {}).get("binary_data", binary)) for each in wanted
        }
        thresholds = {key: query.fraction(key, parameters[key]) for key in ("score", "iou") if key in parameters}
        given = _given(head, "id", str)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"this is no inference request: {type(error).__name__}: {str(error)[:200]}",
            "send JSON with one input, `image`; see /openapi.json",
        ) from None
    tensors.check_outputs(outputs)
    id_ = None if given is None else query.name(given)
    return _Asked(spooled(picture), id_, thresholds, outputs)


def _given(of: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    """What may be absent, but must not be something else."""
    value = of.get(key)
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{key} is no {_NAMES[kind]}")
    return value


def _picture(tensor: dict[str, Any], binary: bytes) -> bytes:
    """The encoded picture in an input tensor."""
    name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
    tensors.check(name, datatype)
    size = (_given(tensor, "parameters", dict) or {}).get("binary_data_size")
    if size is not None:
        if size != len(binary):
            raise UsageError(f"binary_data_size is {size}, {len(binary)} bytes follow", "send what you announce")
        data = tensors.element(binary) if datatype == "BYTES" else binary
    elif datatype == "BYTES":
        (element,) = tensor["data"]
        try:
            data = base64.b64decode(element, validate=True)
        except binascii.Error as error:
            raise UsageError(f"the picture is no base64: {error}", "BYTES in JSON are base64") from None
    else:
        data = bytes(tensor["data"])
    tensors.check_shape(datatype, shape, data)
    return data


def _answer(looker: Looker, version: str, asked: _Asked, found: list[dict[str, Any]]) -> Response:
    values = tensors.columns(found)
    outputs, tail = [], b""
    for name, binary in asked.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": tensors.shape(name, len(found))}
        if binary:
            data = tensors.packed(name, values[name])
            output["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            output["data"] = values[name]
        outputs.append(output)
    head: dict[str, Any] = {"model_name": looker.name, "model_version": version}
    if asked.id is not None:
        head["id"] = asked.id
    head["outputs"] = outputs
    if not any(asked.outputs.values()):
        return JSONResponse(head)
    text = json.dumps(head, ensure_ascii=False).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return Response(text + tail, headers=headers, media_type="application/octet-stream")
