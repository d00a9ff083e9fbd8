"""The streams of one model, inside its process: what the service says to them, and what they say.

To the streams (`op`, after `buoy.serve.wire`):
    {"op": "open", "stream", "spec": {...}}             begin; a stream of that name is replaced
    {"op": "shut", "stream"}                            end; "ended" is said when it has
    {"op": "push", "stream", "captured"?}  and a JPEG   a frame from a WebSocket client
    {"op": "watch", "stream", "width"}                  draw pictures at most so wide with the results; 0 for none

From the streams:
    {"stream", "event": "frame", "counts", "lag_ms", "jpeg_bytes", "crossings"}  and the record, then the JPEG
    {"stream", "event": "state", "state", "reason", "since", "counts"}
                        state: connecting, live, gap, ended (of itself or shut), refused (as a wrong password)
    {"stream", "event": "counts", "counts"}             once a second, when nothing else was said

`counts` is {"received", "processed", "dropped": {reason: n}, "in_flight", "reconnects"}; received = processed +
dropped + in flight, always. Times are UTC, RFC 3339 with milliseconds.
"""

from __future__ import annotations

from typing import Any, Protocol

from buoy.engine import Engine

__all__ = ["Host", "Say"]


class Say(Protocol):
    """Sends one message to the service, from any thread."""

    def __call__(self, head: dict[str, Any], body: bytes = b"") -> None:
        """A head and its body."""
        ...


class Host:
    """All streams that one engine looks at."""

    def __init__(self, engine: Engine, say: Say) -> None:
        self._engine = engine
        self._say = say

    def take(self, head: dict[str, Any], body: bytes) -> None:
        """One message of the service; never raises and never waits for a source."""
        raise NotImplementedError

    def close(self) -> None:
        """End every stream and wait for what is in flight."""
