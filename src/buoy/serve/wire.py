"""What the service and an inference process say to each other: a head of JSON, and bytes.

    8 bytes       little-endian: length of the head, length of the body
    head          JSON
    body          a picture on its way in, an encoded answer on its way out

To the process:   {"op": "look", "id", "name", "form", "expires_s", "score"?, "iou"?}  and the picture
                  {"op": "cancel", "id"}
                  {"op": "open" | "shut" | "push" | "watch", "stream", ...}  see `buoy.streams.host`
From the process: {"ready": true, "model": {...}, "lanes", "callers", "threads", ...}  or  {"ready": false, "error"}
                  {"id", "outcome": "done", "media_type", "spent": {...}, "version"}  and the answer
                  {"id", "outcome": "failed", "error": {...}, "spent": {...}}
                  {"id", "outcome": "cancelled" | "late", "spent": {}}
                  {"stream", "event", ...}  see `buoy.streams.host`
`expires_s` is on the clock of `time.monotonic()`, which all processes of a machine share: time that is left would not
run while the message waits to be read. `late` is a picture that no lane has taken by then, or would take.
The end of the stream asks the process to finish what it has and to leave.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # the inference process has no loop, and no memory for one
    import asyncio

__all__ = ["frame", "read", "receive"]

_LENGTHS = struct.Struct("<II")


def frame(head: dict[str, Any], size_bytes: int = 0) -> bytes:
    """All but the body of a message; the body's `size_bytes` follow."""
    text = json.dumps(head, ensure_ascii=False).encode()
    return _LENGTHS.pack(len(text), size_bytes) + text


def read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a blocking stream; `None` at its end."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack(lengths)
    text, data = stream.read(head), stream.read(body)
    return (json.loads(text), data) if len(data) == body else None


async def receive(stream: asyncio.StreamReader) -> tuple[dict[str, Any], bytes] | None:
    """The next message of an asyncio stream; `None` at its end."""
    from asyncio import IncompleteReadError

    try:
        head, body = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
        return json.loads(await stream.readexactly(head)), await stream.readexactly(body)
    except (IncompleteReadError, ConnectionError):
        return None
