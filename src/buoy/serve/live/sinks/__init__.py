"""Where the results of a stream go besides the page: into a bucket by the hour, to a web address on an alert.

The one who is told of frames (`Sinks.frame`) never waits and never fails. Each sink has a queue that is bounded in
seconds and bytes, and works in threads of its own: one that hangs, is refused, or whose disk is full drops what
waits too long, counts it, says so once, and recovers by itself.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Protocol

from buoy.serve.live.sinks.limits import Limits
from buoy.serve.live.sinks.seen import Frame, Gap, read_frame, read_gap
from buoy.streams.spec import Sink, StreamSpec

__all__ = ["Limits", "Sinks"]

_log = logging.getLogger("buoy.serve.sinks")

#: Width of the pictures that go with alerts, in pixels. Drawing one takes 2 ms of a core, so it is done for every
#: frame: to say which frame will raise an alert, the process of the model would have to know the rules.
_PICTURE_WIDTH = 960


class _Open(Protocol):
    """A sink that works."""

    def frame(self, frame: Frame) -> dict[str, Any] | None: ...
    def gap(self, gap: Gap) -> None: ...
    def status(self) -> dict[str, Any]: ...
    def begin_close(self, deadline_s: float) -> None: ...
    def join(self, deadline_s: float) -> bool: ...


class Sinks:
    """All sinks of one stream.

    Args:
        spec: the stream.
        data: the service's folder (`--data`), in which records wait for the store; without it they wait in a
            temporary folder, and what is there when the machine goes is lost.
        limits: see there.

    Raises:
        UsageError: a sink cannot be used as it is written (its address, its rule, a missing extra).
    """

    def __init__(self, spec: StreamSpec, data: Path | None = None, limits: Limits | None = None) -> None:
        self.stream = spec.name
        #: Records that could not be read; a fault of ours.
        self.unreadable = 0
        self._open: list[_Open] = []
        try:
            for sink in spec.sinks:
                self._open.append(_open(sink, spec, data, limits or Limits()))
        except BaseException:
            self.close(0.0)
            raise
        self._pictures = any(sink.kind == "webhook" for sink in spec.sinks)

    @property
    def picture_width(self) -> int:
        """How wide the pictures have to be that `frame` is given; 0 if it needs none."""
        return _PICTURE_WIDTH if self._pictures else 0

    def frame(self, head: dict[str, Any], record: bytes, jpeg: bytes = b"") -> list[dict[str, Any]]:
        """A frame was looked at. Never waits and never raises.

        Args:
            head: of the message, see `buoy.streams.host`.
            record: `buoy.result/1` with `input.frame`.
            jpeg: the drawn picture, or nothing.

        Returns:
            The alerts that it raises, as {"id", "time", "rule", "found"}; see `webhook`.
        """
        alerts = []
        try:
            frame = read_frame(record, jpeg) if self._open else None
            for sink in self._open:
                if frame and (alert := sink.frame(frame)):
                    alerts.append(alert)
        except Exception:
            self._fault()
        return alerts

    def gap(self, begin: str, end: str, reason: str) -> None:
        """No frame was looked at from `begin` to `end` (UTC, RFC 3339). Never waits and never raises."""
        try:
            gap = read_gap(self.stream, begin, end, reason)
            for sink in self._open:
                sink.gap(gap)
        except Exception:
            self._fault()

    def status(self) -> list[dict[str, Any]]:
        """Each sink as the API shows it.

        {"kind", "to" (without secrets), "state": ok or failing, "since", "error": null or the error's record,
        "written", "dropped": {reason: n}, "waiting"}, of a bucket also {"format", "parts", "unreadable",
        "spooled_bytes", "spool"}, of a webhook {"raised"}.
        """
        return [sink.status() for sink in self._open]

    def close(self, timeout_s: float) -> bool:
        """Write and send what waits, for so many seconds at most; tells whether all of it is done.

        What a bucket sink could not send stays in its spool, and is sent when the stream is there again.
        """
        deadline_s = time.monotonic() + timeout_s
        for sink in self._open:
            sink.begin_close(deadline_s)
        return all([sink.join(deadline_s) for sink in self._open])

    def _fault(self) -> None:
        self.unreadable += 1
        if self.unreadable == 1:
            _log.exception("a record cannot be given to the sinks", extra={"fields": {"stream": self.stream}})


def _open(sink: Sink, spec: StreamSpec, data: Path | None, limits: Limits) -> _Open:
    if sink.kind == "webhook":
        from buoy.serve.live.sinks.webhook import Webhook

        return Webhook(sink, spec, queue_s=limits.alert_s, give_up_s=limits.give_up_s)
    from buoy.serve.live.sinks.bucket import Bucket

    return Bucket(sink, spec, data, limits)
