"""An alert goes to a web address, with the picture that raised it.

The address gets `POST` with this JSON; any answer from 200 to 299 takes it:

    {"schema": "buoy.alert/1", "stream", "station", "camera", "id", "time",
     "rule": {"label", "score", "k", "n", "cooldown_s", "hits"},
     "found": [{"label", "score"}, ...]                those that reached the score, the best first
     "model": {"name", "version", "weights_sha256", "maturity"},
     "record": {...}                                   the frame's buoy.result/1
     "picture": {"media_type": "image/jpeg", "base64"} drawn; null if there is none
     "note"}                                           that it is an aid, and no more

The picture is base64 within the JSON and not a part of a form, since every receiver (Node-RED, Home Assistant,
a function of OSCAR) reads JSON without being told how. `id` stays the same when a send is repeated because its
answer was lost, so a receiver can tell.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
import time
import uuid
from collections import Counter
from typing import Any, NamedTuple

import msgspec

from buoy.errors import StoreError, UsageError, as_buoy_error
from buoy.serve.live.sinks.bounded import Bounded
from buoy.serve.live.sinks.health import Health
from buoy.serve.live.sinks.seen import Frame, Gap
from buoy.streams.rule import Rule
from buoy.streams.spec import Sink, StreamSpec
from buoy.version import VERSION

__all__ = ["NOTE", "Webhook", "shown_address"]

_log = logging.getLogger("buoy.serve.sinks")

NOTE = (
    "Aid only: an automatic detection that no person has checked. It may be wrong, and silence does not mean "
    "that there is no danger. Do not base decisions on safety on it alone."
)

_CONNECT_S = 3.0
#: From the first byte sent to the status line: a server that answers drop by drop counts as one that hangs.
_ANSWER_S = 8.0
_QUEUE_BYTES = 16 << 20
#: After an alert that reached nobody the next is raised no sooner, and no more often is it said.
_AGAIN_S = 10.0


class _Alert(NamedTuple):
    head: dict[str, Any]
    frame: Frame


class Webhook:
    """Watches the rule, and posts alerts from a thread of its own.

    Args:
        sink: address and rule.
        spec: of the stream.
        queue_s: an alert whose sending has not begun by then is dropped.
        give_up_s: an alert that could not be delivered by then has failed, and the rule is armed again.

    Raises:
        UsageError: the address or the rule cannot be used.
    """

    def __init__(self, sink: Sink, spec: StreamSpec, *, queue_s: float = 2.0, give_up_s: float = 60.0) -> None:
        _check(sink)
        self.kind = "webhook"
        self._sink = sink
        self._spec = spec
        self._give_up_s = give_up_s
        self._shown = shown_address(sink.to)
        self._rule = Rule(sink.label, sink.score, sink.k, sink.n, sink.cooldown_s)
        self._queue: Bounded[_Alert] = Bounded(queue_s, _QUEUE_BYTES)
        self._counts = Counter(raised=0, delivered=0, failed=0)
        self._health = Health({"stream": spec.name, "sink": "webhook", "to": self._shown})
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._said_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name=f"webhook of {spec.name}", daemon=True)
        self._thread.start()

    def frame(self, frame: Frame) -> dict[str, Any] | None:
        """One more frame; never waits. Gives the alert, if it raises one."""
        if not self._rule.see(frame.found, flagged=frame.flagged, now_s=time.monotonic()):
            return None
        self._counts["raised"] += 1
        head = self._head(frame)
        self._queue.put(_Alert(head, frame), len(frame.record) + len(frame.jpeg))
        return head

    def gap(self, gap: Gap) -> None:
        """There were no frames."""
        self._rule.forget()

    def status(self) -> dict[str, Any]:
        """For the API and the metrics."""
        waiting = len(self._queue)
        return {
            "kind": self.kind,
            "to": self._shown,
            "state": "failing" if self._health.error else "ok",
            "since": self._health.since,
            "error": self._health.error,
            "written": self._counts["delivered"],
            "dropped": {**self._queue.dropped, "failed": self._counts["failed"]},
            "waiting": waiting,
            "raised": self._counts["raised"],
        }

    def begin_close(self, deadline_s: float) -> None:
        """Send what waits, until this monotonic time."""
        self._deadline_s = deadline_s
        self._closing.set()
        self._queue.close()

    def join(self, deadline_s: float) -> bool:
        """Wait for it; tells whether it has ended."""
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            entries = self._queue.take(60.0, 1)
            for entry in entries:
                self._deliver(entry.item)
            if closing and not entries:
                return

    def _deliver(self, alert: _Alert) -> None:
        """Send until it is taken, refused for good, or too old."""
        body = b""
        began_s = time.monotonic()
        while True:
            try:
                body = body or self._body(alert)
                asyncio.run(_post(self._sink.to, body))
            except Exception as error:
                told = as_buoy_error(error, self._shown)
            else:
                self._counts["delivered"] += 1
                self._health.worked()
                return
            wait_s = self._health.failed(told)
            ends_s = min(began_s + self._give_up_s, self._deadline_s)
            if not told.retry or time.monotonic() + wait_s > ends_s:
                break
            if self._closing.wait(wait_s):  # about to end: once more, soon
                time.sleep(min(wait_s, 0.2))
        self._counts["failed"] += 1
        now_s = time.monotonic()
        self._rule.rearm(now_s + _AGAIN_S)
        if now_s - self._said_s >= _AGAIN_S:
            self._said_s = now_s
            fields = {"stream": self._spec.name, "to": self._shown, "id": alert.head["id"], **told.record()}
            _log.error("an alert could not be delivered", extra={"fields": fields})

    def _head(self, frame: Frame) -> dict[str, Any]:
        rule = self._rule
        hits = [(label, score) for label, score in frame.found if score >= rule.score and rule.label in ("", label)]
        return {
            "id": str(uuid.uuid4()),
            "time": frame.captured,
            "rule": {
                "label": rule.label,
                "score": rule.score,
                "k": rule.k,
                "n": self._sink.n,
                "cooldown_s": rule.cooldown_s,
                "hits": rule.hits,
            },
            "found": [{"label": label, "score": score} for label, score in sorted(hits, key=lambda hit: -hit[1])],
        }

    def _body(self, alert: _Alert) -> bytes:
        record, jpeg = msgspec.json.decode(alert.frame.record), alert.frame.jpeg
        return msgspec.json.encode(
            {
                "schema": "buoy.alert/1",
                "stream": self._spec.name,
                "station": self._spec.station,
                "camera": self._spec.camera,
                **alert.head,
                "model": record["model"],
                "record": record,
                "picture": {"media_type": "image/jpeg", "base64": base64.b64encode(jpeg).decode()} if jpeg else None,
                "note": NOTE,
            }
        )


async def _post(address: str, body: bytes) -> None:
    """Send once.

    Raises:
        StoreError: nobody took it; `retry` tells whether somebody may.
    """
    import httpx2

    timeout = httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S)
    headers = {"Content-Type": "application/json", "User-Agent": f"buoy/{VERSION}"}
    shown = shown_address(address)
    try:
        async with (
            asyncio.timeout(_CONNECT_S + _ANSWER_S),
            httpx2.AsyncClient(timeout=timeout, follow_redirects=False) as client,
            # Of the answer, the status will do.
            client.stream("POST", address, content=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise StoreError(f"{shown} does not answer in time", "is the receiver busy or hanging?", retry=True) from error
    except httpx2.HTTPError as error:
        what = str(error) or type(error).__name__
        raise StoreError(f"{shown} cannot be reached: {what}", "is the receiver running?", retry=True) from error
    if 300 <= status < 400:
        raise StoreError(f"{shown} answers with a redirect ({status})", "give the address that it leads to")
    if status >= 400:
        retry = status >= 500 or status in (408, 425, 429)
        raise StoreError(f"{shown} refuses the alert ({status})", "see the log of the receiver", retry=retry)


def shown_address(address: str) -> str:
    """Where it goes, without the secrets that may stand in its path, its query or before its host."""
    import urllib.parse

    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _check(sink: Sink) -> None:
    import urllib.parse

    try:
        parts = urllib.parse.urlsplit(sink.to)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("a webhook's `to` is no http(s) address", "write it as https://host/path")
    if sink.k > sink.n:
        raise UsageError(f"{sink.k} of {sink.n} frames can never be", "k is at most n")
