"""The streams of one model, inside its process: what the service says to them, and what they say.

To the streams (`op`, after `buoy.wire`):
    {"op": "open", "stream", "spec": {...}, "width", "past"?}  and files    begin, as if watched; a stream of that name
                                                        is replaced. Go on after `past`, without these files
    {"op": "shut", "stream"}                            end; "ended" is said when it has
    {"op": "push", "stream", "captured"?}  and a JPEG   a frame from a WebSocket client
    {"op": "watch", "stream", "width"}                  draw pictures at most so wide with the results; 0 for none

From the streams:
    {"stream", "event": "frame", "counts", "lag_ms", "jpeg_bytes", "crossings"}  and the record, then the JPEG
    {"stream", "event": "state", "state", "reason", "since", "counts", "error"?}
                        state: connecting, live, gap, ended (of itself or shut), refused (as a wrong password)
    {"stream", "event": "counts", "counts"}             once a second, when nothing else was said
Of a folder or a video each of them may have what is to be remembered for the next "open", see `buoy.streams.progress`:
    "past": {"number", "clock_s", "spot"?}   of the frame; "passed", "gone": files, in hex, that are done with or not
                                             there any more. With this frame and those before, these are dealt with.

`counts` is {"received", "processed", "dropped": {reason: n}, "in_flight", "reconnects"}; received = processed +
dropped + in flight, always. `lag_ms` is the time from the arrival of a frame to this message. `error` says of a stream
that could not begin: {"class", "message", "hint"}. `crossings` is empty, or what lines and regions say:
    {"events": [{"line", "direction": "in" | "out", "track_id", "label"}],          of this frame
     "lines": {line: {"in": {label: n}, "out": {label: n}}},                        tracks since it was opened
     "regions": {region: {"now": {label: n}, "maxn": {label: n}}}}                  animals now, and the most at once
Times are UTC, RFC 3339 with milliseconds.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from buoy.engine import Engine
from buoy.streams.dispatch import Dispatch
from buoy.streams.progress import Past
from buoy.streams.stream import Say, Stream

__all__ = ["Host", "Say"]

_log = logging.getLogger("buoy.streams")

_COUNTS_S = 1.0
#: What a source and a run of the network may take to end, together.
_CLOSE_S = 20.0


class Host:
    """All streams that one engine looks at."""

    def __init__(self, engine: Engine, say: Say) -> None:
        self._engine = engine
        self._say = say
        self._dispatch = Dispatch(engine)
        self._lock = threading.Lock()
        #: Those that have not ended.
        self._streams: dict[str, Stream] = {}
        self._closing = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="streams", daemon=True)
        self._ticker.start()

    def take(self, head: dict[str, Any], body: bytes) -> None:
        """One message of the service; never raises and never waits for a source."""
        try:
            self._take(head["op"], head["stream"], head, body)
        except Exception:
            _log.exception("a message about a stream is not understood: %s", head.get("op"))

    def close(self) -> None:
        """End every stream and wait for what is in flight."""
        self._closing.set()
        streams, ends_s = self._all(), time.monotonic() + _CLOSE_S
        for stream in streams:
            stream.shut()
        for stream in streams:
            if not stream.join(max(0.0, ends_s - time.monotonic())):
                _log.error("stream %s does not end", stream.name)
        self._ticker.join()

    def _take(self, op: str, name: str, head: dict[str, Any], body: bytes) -> None:
        with self._lock:
            stream = self._streams.get(name)
        if op == "open":
            self._open(name, head, body, stream)
        elif stream is None:
            return  # it has ended, and the service will hear of it
        elif op == "shut":
            stream.shut()
        elif op == "push":
            stream.push(body, _moment(head.get("captured")))
        elif op == "watch":
            stream.watch(int(head["width"]))

    def _open(self, name: str, head: dict[str, Any], files: bytes, before: Stream | None) -> None:
        if before:
            before.shut(muted=True)
        engine = self._engine
        thresholds = engine.thresholds or engine.model.thresholds
        past = msgspec.convert(head.get("past", {}), Past)
        stream = Stream(name, head["spec"], self._dispatch, thresholds, engine.lanes, self._say, before, past, files)
        with self._lock:
            self._streams[name] = stream
        stream.watch(int(head.get("width", 0)))  # before it begins: an alert over its first frame has a picture
        stream.start()

    def _all(self) -> list[Stream]:
        with self._lock:
            return list(self._streams.values())

    def _tick(self) -> None:
        while not self._closing.wait(_COUNTS_S):
            for stream in self._all():
                stream.say_counts(_COUNTS_S)
            with self._lock:
                self._streams = {name: stream for name, stream in self._streams.items() if not stream.over}


def _moment(text: str | None) -> float | None:
    """When a client says that its picture was taken; `None` if it does not say, or not so that one can read it."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
