"""Between messages of the protocol and what the service asks and answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from buoy.errors import UsageError
from buoy.serve import query, tensors
from buoy.serve.rpc.messages import message
from buoy.serve.tensors import OUTPUTS

__all__ = ["Asked", "answered", "asked"]

_ModelInferResponse = message("ModelInferResponse")

#: Datatype to the field of `InferTensorContents` that holds it.
_FIELDS = {"FP32": "fp32_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}


class Asked(NamedTuple):
    """What a ModelInferRequest says."""

    picture: bytes
    name: str
    thresholds: dict[str, float]
    #: The outputs that are wanted, in the order of the answer.
    outputs: tuple[str, ...]
    #: Whether tensors travel as bytes beside the message; the answer comes as the request did.
    raw: bool


def asked(request: Any) -> Asked:
    """Take a ModelInferRequest apart.

    Raises:
        UsageError: it does not fit the model.
    """
    if len(request.inputs) != 1:
        raise UsageError(f"the request has {len(request.inputs)} inputs", "send one, `image`")
    (tensor,) = request.inputs
    tensors.check(tensor.name, tensor.datatype)
    raw = len(request.raw_input_contents) > 0
    picture = _raw(tensor, request.raw_input_contents) if raw else _contents(tensor)
    tensors.check_shape(tensor.datatype, list(tensor.shape), picture)
    names = tuple(dict.fromkeys(each.name for each in request.outputs)) or tuple(OUTPUTS)
    tensors.check_outputs(names)
    thresholds = {key: _fraction(key, request.parameters[key]) for key in ("score", "iou") if key in request.parameters}
    return Asked(picture, query.name(request.id) or "upload", thresholds, names, raw)


def answered(model: str, version: str, id_: str, wanted: Asked, found: list[dict[str, Any]]) -> Any:
    """The detections as a ModelInferResponse."""
    response = _ModelInferResponse(model_name=model, model_version=version, id=id_)
    columns = tensors.columns(found)
    for name in wanted.outputs:
        datatype, values = OUTPUTS[name], columns[name]
        output = response.outputs.add(name=name, datatype=datatype, shape=tensors.shape(name, len(found)))
        if wanted.raw:
            response.raw_output_contents.append(tensors.packed(name, values))
        else:
            contents = [value.encode() for value in values] if datatype == "BYTES" else values
            getattr(output.contents, _FIELDS[datatype]).extend(contents)
    return response


def _raw(tensor: Any, contents: Any) -> bytes:
    if len(contents) != 1 or tensor.HasField("contents"):
        raise UsageError(
            "raw_input_contents do not fit the inputs", "send one for the input, and no contents beside it"
        )
    return tensors.element(contents[0]) if tensor.datatype == "BYTES" else contents[0]


def _contents(tensor: Any) -> bytes:
    if tensor.datatype == "UINT8":
        values = tensor.contents.uint_contents
        if any(value > 255 for value in values):
            raise UsageError("the input image has values above 255", "UINT8 is one byte of the picture each")
        return bytes(values)
    elements = tensor.contents.bytes_contents
    if len(elements) != 1:
        raise UsageError(f"the input image has {len(elements)} elements", "send the picture as one")
    return bytes(elements[0])


def _fraction(key: str, parameter: Any) -> float:
    kind = parameter.WhichOneof("parameter_choice")
    return query.fraction(key, getattr(parameter, kind) if kind else None)
