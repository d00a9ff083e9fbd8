"""What a sink is told: a frame that was looked at, or a time in which none was."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = ["Frame", "Gap", "read_frame", "read_gap"]

#: The names of files are made of it, and a client that pushes frames may say when they were captured.
_Moment = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]


class Gap(Struct, frozen=True, kw_only=True, tag_field="schema", tag="buoy.gap/1"):
    """No frame was looked at, or none was kept: nothing can be said of this time, least of all zero.

    Times are UTC, RFC 3339 with milliseconds.
    """

    stream: str
    begin: _Moment
    end: _Moment
    reason: str
    #: Frames that were looked at and that the sink then lost; 0 where there were none to lose.
    dropped: int = 0


class Frame(NamedTuple):
    """One frame, with what the rules need of its record already read."""

    captured: str
    #: Dark, blurred, frozen, or an error: no observation.
    flagged: bool
    #: Label and score of each detection.
    found: list[tuple[str, float]]
    #: `buoy.result/1` as it came.
    record: bytes
    #: The drawn picture; empty when nobody asked for it.
    jpeg: bytes


class _Found(Struct):
    label: str
    score: float


class _Captured(Struct):
    captured: _Moment
    flags: list[str] = []


class _Input(Struct):
    frame: _Captured


class _Record(Struct):
    """Only what is needed of a record: reading it whole would take ten times as long."""

    input: _Input
    detections: list[_Found] = []
    error: msgspec.Raw | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Record)


def read_frame(record: bytes, jpeg: bytes) -> Frame:
    """Read what the rules need.

    Raises:
        msgspec.MsgspecError: it is no record of a frame.
    """
    read = _decoder.decode(record)
    frame = read.input.frame
    flagged = bool(frame.flags) or read.error is not UNSET
    return Frame(frame.captured, flagged, [(found.label, found.score) for found in read.detections], record, jpeg)


def read_gap(stream: str, begin: str, end: str, reason: str) -> Gap:
    """Check what is said of a gap.

    Raises:
        msgspec.MsgspecError: its times are none.
    """
    said = {"schema": "buoy.gap/1", "stream": stream, "begin": begin, "end": end, "reason": reason}
    return msgspec.convert(said, Gap)
