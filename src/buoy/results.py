"""`buoy.result/1`: the one record that every way of running a model writes.

`run` holds everything that may differ between two runs. Outside it, the same input and the same model
give the same bytes. The JSON Schema in schemas/result.schema.json is generated from these classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from buoy.errors import BuoyError

__all__ = [
    "SCHEMA",
    "Detection",
    "ErrorInfo",
    "Failure",
    "FrameInfo",
    "InputInfo",
    "ModelInfo",
    "Record",
    "Result",
    "RunInfo",
    "decode_record",
    "encode_record",
]

SCHEMA: Literal["buoy.result/1"] = "buoy.result/1"

Score = Annotated[float, Meta(ge=0, le=1)]


class FrameInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a picture stands in a stream or a video."""

    #: Name of the stream.
    stream: str
    #: Of the frame within its source since that was opened, from 0; frames that were never looked at count too.
    number: int
    #: When it was received, UTC, RFC 3339 with milliseconds.
    captured: str
    #: Seconds since the start of the video, by its own clock; absent where the source has none.
    position_s: float | UnsetType = UNSET
    #: What is wrong with the picture: dark, blurred, frozen. Flagged frames are no effort.
    flags: list[str] = []


class InputInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was looked at. Width and height are those of the upright picture, in pixels.

    Size and sha256 are of the encoded bytes where there are such; of a frame that came decoded out of a video,
    those of its pixels, (H, W, 3) uint8 RGB.
    """

    name: str
    size_bytes: int
    sha256: str
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    frame: FrameInfo | UnsetType = UNSET


class ModelInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What looked at it. `maturity: demo` marks weights that nobody should draw conclusions from."""

    name: str
    version: str
    weights_sha256: str
    maturity: Literal["demo", "published"]


class Detection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object found in a picture."""

    label: str
    class_id: int
    #: 0 to 1, rounded to 6 decimals.
    score: Score
    #: x1, y1, x2, y2 in pixels of the original, upright picture, rounded to 2 decimals.
    box: tuple[float, float, float, float]
    #: Identifiers of the taxon by register, such as {"aphia_id": 125559}; absent if the class has none.
    taxon: dict[str, int | str] | UnsetType = UNSET
    #: The same animal in several frames of a stream has the same number; absent without tracking.
    track_id: int | UnsetType = UNSET


class RunInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that may differ between two runs over the same input."""

    started: str
    read_ms: float
    infer_ms: float
    total_ms: float
    host: str
    buoy: str
    runtime: str
    provider: str
    threads: int
    callers: int
    #: Pictures that one run of the network had, this one included.
    batch: int = 1


class Result(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The findings in one input. They stand under the key of their task; the other keys are absent."""

    schema: Literal["buoy.result/1"] = SCHEMA
    input: InputInfo
    model: ModelInfo
    task: str
    #: Thresholds and sizes that were really used.
    parameters: dict[str, Any]
    detections: list[Detection] | UnsetType = UNSET
    run: RunInfo


class ErrorInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why there is no result: class of the error, what happened and where, what to do next."""

    class_: str = msgspec.field(name="class")
    message: str
    hint: str


class Failure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The record of an input that could not be processed: written beside the results, never silence."""

    schema: Literal["buoy.result/1"] = SCHEMA
    input: InputInfo
    model: ModelInfo
    error: ErrorInfo

    @classmethod
    def of(cls, error: BuoyError, input: InputInfo, model: ModelInfo) -> Failure:
        """Make the record of `error`."""
        record = error.record()
        info = ErrorInfo(class_=record["class"], message=record["message"], hint=record["hint"])
        return cls(input=input, model=model, error=info)


Record = Result | Failure


def encode_record(record: Record) -> bytes:
    """The record as the bytes of its file: JSON, UTF-8, keys in a fixed order, a line for each key and finding."""
    lines = []
    for key, value in msgspec.to_builtins(record).items():
        if isinstance(value, list) and value:
            items = b",\n    ".join(msgspec.json.encode(item) for item in value)
            lines.append(b'  "%s": [\n    %s\n  ]' % (key.encode(), items))
        else:
            lines.append(b'  "%s": %s' % (key.encode(), msgspec.json.encode(value)))
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def decode_record(data: bytes) -> Record:
    """Read a record back.

    Raises:
        msgspec.ValidationError: it is not a `buoy.result/1` record.
    """
    return (_results if _kinds.decode(data).error is UNSET else _failures).decode(data)


class _Kind(Struct):
    """Only what tells a failure from a result."""

    error: msgspec.Raw | UnsetType = UNSET


#: Made here, as two threads that first use a type at once end the process (msgspec 0.22), and the gateway has several.
_kinds = msgspec.json.Decoder(_Kind)
_results: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Result)
_failures: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Failure)
