"""The tensors of the Open Inference Protocol, the same for every detector and over every transport.

    in    image      UINT8 [n]     an encoded picture (JPEG, PNG, TIFF, WebP), its bytes; or
                     BYTES [1]     the same as one element
    out   boxes      FP32 [n, 4]   x1, y1, x2, y2 in pixels of the upright picture
          scores     FP32 [n]      0 to 1, the best first
          class_ids  INT64 [n]
          labels     BYTES [n]

In binary, numbers are little-endian and each element of BYTES has its length (UINT32) in front of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from buoy.errors import UsageError
from buoy.serve.remote import Looker

__all__ = ["OUTPUTS", "check", "check_outputs", "check_shape", "columns", "element", "metadata", "packed", "shape"]

#: Name of each output and its datatype.
OUTPUTS = {"boxes": "FP32", "scores": "FP32", "class_ids": "INT64", "labels": "BYTES"}
_PACK = {"FP32": "f", "INT64": "q"}


def metadata(looker: Looker) -> dict[str, Any]:
    """What the protocol says of a model."""
    return {
        "name": looker.name,
        "versions": [looker.about["model"]["version"]],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape(name, -1)} for name, datatype in OUTPUTS.items()
        ],
    }


def check(name: object, datatype: object) -> None:
    """Refuse an input that there is not.

    Raises:
        UsageError: its name or its datatype.
    """
    if name != "image":
        raise UsageError(f"there is no input {str(name)[:40]!r}", "the input is `image`")
    if datatype not in ("BYTES", "UINT8"):
        raise UsageError(f"the input image is {str(datatype)[:20]}", "send UINT8 [n] or BYTES [1]")


def check_shape(datatype: str, given: object, data: bytes) -> None:
    """Refuse a shape that does not fit the data; raises as `check` does."""
    expected = [1] if datatype == "BYTES" else [len(data)]
    if given != expected:
        raise UsageError(f"the input image has the shape {str(given)[:40]}", f"for this data it is {expected}")


def check_outputs(names: Iterable[object]) -> None:
    """Refuse outputs that there are not; raises as `check` does."""
    if unknown := [str(name) for name in names if name not in OUTPUTS]:
        raise UsageError(f"there is no output {unknown[0][:40]!r}", f"outputs: {', '.join(OUTPUTS)}")


def element(data: bytes) -> bytes:
    """The only element of a BYTES tensor in binary; raises as `check` does."""
    if len(data) < 4 or struct.unpack("<I", data[:4])[0] != len(data) - 4:
        raise UsageError("the element's length in front of it is wrong", "4 bytes, little-endian, then the data")
    return data[4:]


def columns(found: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The detections of a record as flat lists, one for each output."""
    return {
        "boxes": [side for each in found for side in each["box"]],
        "scores": [each["score"] for each in found],
        "class_ids": [each["class_id"] for each in found],
        "labels": [each["label"] for each in found],
    }


def shape(name: str, found: int) -> list[int]:
    """Of an output with so many detections."""
    return [found, 4] if name == "boxes" else [found]


def packed(name: str, values: list[Any]) -> bytes:
    """An output in binary."""
    if OUTPUTS[name] == "BYTES":
        elements = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return struct.pack(f"<{len(values)}{_PACK[OUTPUTS[name]]}", *values)
