"""The Open Inference Protocol (KServe v2) over REST, with the binary tensor extension.

The tensors, the same for every detector:

    in    image      UINT8 [n]     an encoded picture (JPEG, PNG, TIFF, WebP), its bytes; or
                     BYTES [1]     the same as one element; in JSON as base64
    out   boxes      FP32 [n, 4]   x1, y1, x2, y2 in pixels of the upright picture
          scores     FP32 [n]      0 to 1, the best first
          class_ids  INT64 [n]
          labels     BYTES [n]

`parameters` of a request may set `score` and `iou`. Sources: the protocol's `required_api.md` and Triton's
`extension_binary_data.md`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import struct
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from buoy import __version__
from buoy.errors import UsageError
from buoy.serve import query
from buoy.serve.refusals import NotReady
from buoy.serve.remote import Looker, Question
from buoy.serve.service import Service

__all__ = ["infer", "live", "metadata", "model_ready", "ready", "server"]

_HEAD_LENGTH = "inference-header-content-length"
_DATATYPES = {"boxes": "FP32", "scores": "FP32", "class_ids": "INT64", "labels": "BYTES"}
_PACK = {"FP32": "f", "INT64": "q"}


class _Asked(NamedTuple):
    picture: bytes
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
    shapes = {"boxes": [-1, 4]}
    return JSONResponse(
        {
            "name": looker.name,
            "versions": [looker.about["model"]["version"]],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1]}],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": shapes.get(name, [-1])}
                for name, datatype in _DATATYPES.items()
            ],
        }
    )


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
    body = await service.uploads.body(request)
    head_length = request.headers.get(_HEAD_LENGTH)
    asked = await asyncio.to_thread(_parse, body, head_length)
    with io.BytesIO(asked.picture) as picture:
        question = Question(picture, asked.id or "upload", "json", asked.thresholds, deadline_s)
        answer = await service.ask(request, looker, question)
    return _answer(looker, answer.version, asked, json.loads(answer.body)["detections"])


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
        parameters = head.get("parameters") or {}
        picture = _picture(tensor, body[length:])
        binary = bool(parameters.get("binary_data_output", False))
        wanted = head.get("outputs") or [{"name": name} for name in _DATATYPES]
        outputs = {each["name"]: bool((each.get("parameters") or {}).get("binary_data", binary)) for each in wanted}
        thresholds = {key: query.fraction(key, parameters[key]) for key in ("score", "iou") if key in parameters}
        given = head.get("id")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"this is no inference request: {type(error).__name__}: {str(error)[:200]}",
            "send JSON with one input, `image`; see /openapi.json",
        ) from None
    if unknown := [str(name) for name in outputs if name not in _DATATYPES]:
        raise UsageError(f"there is no output {unknown[0][:40]!r}", f"outputs: {', '.join(_DATATYPES)}")
    return _Asked(picture, None if given is None else query.name(str(given)), thresholds, outputs)


def _picture(tensor: dict[str, Any], binary: bytes) -> bytes:
    """The encoded picture in an input tensor."""
    name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
    if name != "image":
        raise UsageError(f"there is no input {str(name)[:40]!r}", "the input is `image`")
    if datatype not in ("BYTES", "UINT8"):
        raise UsageError(f"the input image is {str(datatype)[:20]}", "send UINT8 [n] or BYTES [1]")
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    if size is not None:
        if size != len(binary):
            raise UsageError(f"binary_data_size is {size}, {len(binary)} bytes follow", "send what you announce")
        data = binary
        if datatype == "BYTES":
            if len(data) < 4 or struct.unpack("<I", data[:4])[0] != len(data) - 4:
                raise UsageError(
                    "the element's length in front of it is wrong", "4 bytes, little-endian, then the data"
                )
            data = data[4:]
    elif datatype == "BYTES":
        (element,) = tensor["data"]
        try:
            data = base64.b64decode(element, validate=True)
        except binascii.Error as error:
            raise UsageError(f"the picture is no base64: {error}", "BYTES in JSON are base64") from None
    else:
        data = bytes(tensor["data"])
    expected = [1] if datatype == "BYTES" else [len(data)]
    if shape != expected:
        raise UsageError(f"the input image has the shape {str(shape)[:40]}", f"for this data it is {expected}")
    return data


def _answer(looker: Looker, version: str, asked: _Asked, found: list[dict[str, Any]]) -> Response:
    values: dict[str, list[Any]] = {
        "boxes": [side for each in found for side in each["box"]],
        "scores": [each["score"] for each in found],
        "class_ids": [each["class_id"] for each in found],
        "labels": [each["label"] for each in found],
    }
    outputs, tail = [], b""
    for name, binary in asked.outputs.items():
        shape = [len(found), 4] if name == "boxes" else [len(found)]
        output: dict[str, Any] = {"name": name, "datatype": _DATATYPES[name], "shape": shape}
        if binary:
            data = _packed(_DATATYPES[name], values[name])
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


def _packed(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        elements = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return struct.pack(f"<{len(values)}{_PACK[datatype]}", *values)
