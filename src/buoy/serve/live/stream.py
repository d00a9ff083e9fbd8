"""What the service knows of one stream, and what it tells its viewers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from buoy.serve.live.clock import now
from buoy.serve.live.feed import Feed
from buoy.serve.live.history import Gap, History
from buoy.serve.live.masking import masked, without
from buoy.serve.live.outage import OUTAGE
from buoy.serve.live.pushes import Pushes
from buoy.serve.live.totals import Totals
from buoy.serve.remote import Looker
from buoy.streams.spec import StreamSpec

if TYPE_CHECKING:
    from buoy.serve.live.sinks import Sinks

__all__ = ["Event", "Origin", "Stream", "open_sinks"]

Origin = Literal["file", "api"]
#: Name of an event, and its JSON.
Event = tuple[str, bytes]

_EVENTS, _PICTURES = 128, 1


class _Frame(msgspec.Struct):
    captured: str
    number: int
    flags: list[str] = []
    position_s: float | None = None


class _Input(msgspec.Struct):
    frame: _Frame
    width: int = 0
    height: int = 0


class _Found(msgspec.Struct):
    label: str


class _Error(msgspec.Struct):
    message: str


class _Record(msgspec.Struct):
    """Only what the list of streams shows of a record."""

    input: _Input
    detections: list[_Found] = []
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Record)


class Stream:
    """One stream: what is asked of it, its state, its counts, its latest frame, its gaps, and who reads from it.

    Args:
        spec: what was asked.
        origin: who asked: the operator's file, or the API.
        looker: the model that looks.
        history: what is known of it from before.
        sinks: where its results go besides.
    """

    def __init__(
        self, spec: StreamSpec, origin: Origin, looker: Looker, history: History, sinks: Sinks | None = None
    ) -> None:
        self.spec = spec
        self.origin = origin
        self.looker = looker
        self.history = history
        self.sinks = sinks
        self.totals = Totals()
        self.events: Feed[Event] = Feed(_EVENTS)
        self.pictures: Feed[bytes] = Feed(_PICTURES, most_bytes=16 << 20)
        #: Widths that viewers want their pictures in.
        self.widths: Counter[int] = Counter()
        #: The width that its process has been asked for; 0 for no pictures.
        self.watched = 0
        self.state, self.reason, self.since = "connecting", "the model is being loaded", now()
        self.lag_ms = 0.0
        self.latest: dict[str, Any] | None = None
        self.pushes = Pushes()
        #: Set when nobody can read from it any more.
        self.gone = asyncio.Event()
        #: It has been asked to end.
        self.shutting = False
        self._alerts = 0

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state == "ended"

    @property
    def ended(self) -> bool:
        """Whether it has ended of itself, as a video does: it does not begin again."""
        return self.over and not self.shutting

    def view(self) -> dict[str, Any]:
        """As the API shows it."""
        model = self.looker.about.get("model", {})
        gap = self.history.open
        return {
            "name": self.spec.name,
            "origin": self.origin,
            "state": self.state,
            "reason": self.reason,
            "since": self.since,
            "gap": msgspec.to_builtins(gap) if gap else None,
            "model": {key: model.get(key, "") for key in ("name", "version", "maturity", "title")},
            "labels": model.get("labels", []),
            "counts": self.totals.now(),
            "per_second": self.totals.rates(),
            "lag_ms": self.lag_ms,
            "latest": self.latest,
            "viewers": self.widths.total(),
            "sinks": self.sinks.status() if self.sinks else [],
            "spec": masked(self.spec),
        }

    def said_state(self, state: str, reason: str, since: str) -> None:
        """It has changed."""
        reason = without(self.spec, reason)
        if state == "live":
            self._tell_gap(self.history.end(since))
        elif state in ("gap", "refused"):
            self._tell_gap(self.history.begin(reason, since))
        self.state, self.reason, self.since = state, reason, since
        self.tell("state", self.state_event())
        if state != "live" and self.watched:
            self.pictures.put(OUTAGE, len(OUTAGE))

    def said_frame(self, head: dict[str, Any], record: bytes, jpeg: bytes) -> None:
        """A frame was looked at."""
        seen = _decoder.decode(record)
        if self.history.open:  # whatever was said: here is a frame
            self._tell_gap(self.history.end(seen.input.frame.captured))
        self.lag_ms = head["lag_ms"]
        self.latest = {
            **msgspec.to_builtins(seen.input.frame),
            "width": seen.input.width,
            "height": seen.input.height,
            "found": dict(Counter(each.label for each in seen.detections)),
            "error": seen.error.message if seen.error else None,
        }
        parts: dict[str, Any] = {"event": "frame", "stream": self.spec.name, "counts": self.totals.now()}
        parts |= {"lag_ms": self.lag_ms, "crossings": head.get("crossings", {})}
        # the record is JSON already; its line ends stand between values alone
        line = record.replace(b"\n    ", b"").replace(b"\n  ", b"").replace(b"\n", b"")
        text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()
        self._put("frame", text[:-1] + b',"record":' + line + b"}")
        if self.sinks:
            self.sinks.frame(head, record, jpeg)
        if jpeg:
            self.pictures.put(jpeg, len(jpeg))

    def said_counts(self) -> None:
        """Nothing but how many there have been."""
        self.tell("counts", {"counts": self.totals.now()})

    def lost(self, reason: str, since: str) -> None:
        """The process that looked at it is gone."""
        self.totals.close()
        self.said_state("gap", reason, since)

    def removed(self) -> None:
        """It will have no more frames: an outage that goes on lasted until now."""
        self._tell_gap(self.history.end(now()))

    def see_alerts(self) -> None:
        """Let viewers know when a rule of a sink has been met since the last look."""
        raised = sum(sink.get("raised", 0) for sink in self.sinks.status()) if self.sinks else 0
        if raised > self._alerts:
            self.tell("alert", {"raised": raised, "at": now()})
        self._alerts = raised

    def state_event(self) -> dict[str, Any]:
        """What it is now."""
        return {"state": self.state, "reason": self.reason, "since": self.since, "counts": self.totals.now()}

    def tell(self, event: str, content: dict[str, Any]) -> None:
        """Let everybody who listens know."""
        self._put(event, self.encode(event, content))

    def encode(self, event: str, content: dict[str, Any]) -> bytes:
        """An event as its JSON."""
        told = {"event": event, "stream": self.spec.name, **content}
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()

    def end(self) -> None:
        """Nobody can read from it any more."""
        self.events.end()
        self.pictures.end()
        self.gone.set()

    def _put(self, event: str, text: bytes) -> None:
        self.events.put((event, text), len(text))

    def _tell_gap(self, gap: Gap | None) -> None:
        if gap:
            self.tell("gap", msgspec.to_builtins(gap))
        if gap and gap.end and self.sinks:
            self.sinks.gap(gap.begin, gap.end, gap.reason)


def open_sinks(spec: StreamSpec, data: Path | None) -> Sinks | None:
    """The sinks of a stream, if it has any.

    Raises:
        UsageError: one cannot be used.
    """
    if not spec.sinks:
        return None
    from buoy.serve.live.sinks import Sinks

    return Sinks(spec, data)
