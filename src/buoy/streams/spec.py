"""What a user says of a stream: where its pictures come from, which of them to look at, what to make of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from buoy.errors import UsageError

__all__ = ["Line", "Region", "Sink", "StreamSpec", "Tracking", "read_spec"]

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", description="lower case, digits, hyphens")]
Fraction = Annotated[float, Meta(ge=0, le=1)]
#: x, y as fractions of the picture's width and height, so that a change of resolution changes nothing.
Point = tuple[Fraction, Fraction]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown keys are errors in every section."""


class Tracking(_Section, frozen=True):
    """ByteTrack's parameters, with the defaults of ultralytics; times instead of numbers of frames."""

    high: Fraction = 0.25
    low: Fraction = 0.1
    new: Fraction = 0.25
    match: Fraction = 0.8
    #: How long a lost track is remembered.
    lost_s: Annotated[float, Meta(gt=0, le=600)] = 1.2


class Line(_Section, frozen=True):
    """A line that tracks are counted at when they cross it. Needs tracking."""

    name: Name
    start: Point
    end: Point


class Region(_Section, frozen=True):
    """A part of the picture in which animals are counted."""

    name: Name
    points: Annotated[list[Point], Meta(min_length=3, max_length=64)]


class Sink(_Section, frozen=True):
    """Where results go besides the page; never slows inference."""

    kind: Literal["bucket", "webhook"]
    #: bucket: a folder, or s3://bucket/prefix. webhook: an http(s) address.
    to: Annotated[str, Meta(min_length=1)]
    #: Of a bucket.
    format: Literal["jsonl", "csv", "parquet"] = "jsonl"
    #: Of a webhook: which label (any by default) must reach which score in `k` of the last `n` frames.
    label: str = ""
    score: Fraction = 0.5
    k: Annotated[int, Meta(ge=1, le=1000)] = 3
    n: Annotated[int, Meta(ge=1, le=1000)] = 5
    cooldown_s: Annotated[float, Meta(ge=0)] = 300.0


class StreamSpec(_Section, frozen=True):
    """One stream, as a client posts it and as it is kept over a restart."""

    name: Name
    #: rtsp://, rtsps://, http(s):// (MJPEG), a video file, a folder that grows, or `push:` for a WebSocket client.
    source: Annotated[str, Meta(min_length=1, max_length=2048)]
    #: Whether the certificate of a source over TLS (rtsps, https) must be trusted.
    verify_tls: bool = True
    #: Which model looks; empty for the only one.
    model: str = ""
    #: live: the newest frame only, drops are counted. file: every frame. By default what fits the source.
    policy: Literal["auto", "live", "file"] = "auto"
    #: Look at one frame in so many seconds; 0 for as many as possible.
    every_s: Annotated[float, Meta(ge=0, le=86400)] = 0.0
    score: Fraction | None = None
    iou: Fraction | None = None
    #: `true` for the defaults.
    track: bool | Tracking = False
    lines: list[Line] = []
    regions: list[Region] = []
    sinks: list[Sink] = []
    #: Mean grey level (0-255) below which a frame is dark; 0 switches the flag off. The same for the others.
    dark_below: Annotated[float, Meta(ge=0, le=255)] = 10.0
    #: Variance of the Laplacian below which a frame is blurred; depends on the camera, so off by default.
    blurred_below: Annotated[float, Meta(ge=0)] = 0.0
    #: The very same picture for so long is frozen.
    frozen_after_s: Annotated[float, Meta(ge=0)] = 10.0
    #: Written into the tables.
    station: str = ""
    camera: str = ""

    @property
    def tracking(self) -> Tracking | None:
        """The tracker's parameters, if there is to be one."""
        return self.track if isinstance(self.track, Tracking) else Tracking() if self.track else None


#: Made here, as msgspec (0.22) learns a type with its first use, and two threads that do so at once, as those of two
#: streams that begin, end the process with SIGSEGV.
_decoder = msgspec.json.Decoder(StreamSpec)


def read_spec(data: bytes | dict[str, Any]) -> StreamSpec:
    """Check what a client posted, or what stands in a file.

    Raises:
        UsageError: it is wrong; the message names the key.
    """
    try:
        spec = _decoder.decode(data) if isinstance(data, bytes) else msgspec.convert(data, StreamSpec)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError(f"this is no stream: {error}", f"keys: {', '.join(StreamSpec.__struct_fields__)}") from None
    if spec.lines and spec.tracking is None:
        raise UsageError(f"{spec.name}: lines count tracks, and track is off", "set track: true")
    return spec
