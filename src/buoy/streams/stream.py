"""One stream inside the process of its model: a reader, a place for its frames, and what is said of its results."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from buoy.errors import BuoyError, as_buoy_error
from buoy.results import Failure, Record, Result, encode_record
from buoy.streams.account import Account
from buoy.streams.crossing import Report
from buoy.streams.dispatch import Dispatch, Order, Taken
from buoy.streams.findings import Findings
from buoy.streams.frame import Frame, utc
from buoy.streams.picture import Pictures
from buoy.streams.progress import Past, Progress
from buoy.streams.reader import Reader, State
from buoy.streams.slot import Slot
from buoy.streams.sources import mask, policy_of
from buoy.streams.spec import StreamSpec, read_spec
from buoy.tasks import Thresholds

__all__ = ["Say", "Stream"]

_log = logging.getLogger("buoy.streams")

#: Only for what nobody tells; everything else wakes the stream's thread.
_PATIENCE_S = 1.0
#: States that are told at once; before the others, what was received until then is told.
_AT_ONCE = ("connecting", "live")


class Say(Protocol):
    """Sends one message to the service, from any thread."""

    def __call__(self, head: dict[str, Any], body: bytes = b"") -> None:
        """A head and its body."""
        ...


class _Told(NamedTuple):
    """A state that is to be said once so many frames have been dealt with."""

    state: State
    received: int


class Stream:
    """One stream. All that it says of frames and states comes from its own thread, in order.

    Args:
        name: of the stream.
        spec: as the service says it.
        dispatch: who gives its frames to the engine.
        default: the model's thresholds.
        lanes: of the engine.
        say: to the service.
        before: the stream that this one replaces: it is waited for.
        past: where an opening before has ended.
        files: the pictures of a folder that are done with (`buoy.streams.progress`).
    """

    def __init__(
        self,
        name: str,
        spec: dict[str, Any],
        dispatch: Dispatch,
        default: Thresholds,
        lanes: int,
        say: Say,
        before: Stream | None = None,
        past: Past | None = None,
        files: bytes = b"",
    ) -> None:
        self.name = name
        self.account = Account()
        self._progress = Progress(past, files, self.account.settled)
        self.order = Order(lanes + 1)
        self.slot: Slot
        self.thresholds: Thresholds | None = None
        self._spec = spec
        self._dispatch = dispatch
        self._default = default
        self._say = say
        self._before = before
        self._width = 0
        self._pictures: Pictures | None = None
        self._findings: Findings
        self._reader: Reader | None = None
        self._states: deque[_Told] = deque()
        self._stopping = threading.Event()
        self._telling = threading.Lock()
        self._ended = self._muted = False
        self._said_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"stream-{name}", daemon=True)

    @property
    def over(self) -> bool:
        """Whether it has said that it has ended."""
        return self._ended

    def start(self) -> None:
        """Begin; does not wait."""
        self._thread.start()

    def shut(self, *, muted: bool = False) -> None:
        """End; does not wait.

        Args:
            muted: nothing is to be said any more.
        """
        self._muted = self._muted or muted
        self._stopping.set()
        self.order.wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; `False` if it did not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def push(self, image: bytes, captured_s: float | None) -> None:
        """A frame of a client. Those that come before the stream has begun are dropped."""
        if self._reader is None:
            self.account.received()
            self.account.dropped("early")
        else:
            self._reader.push(image, captured_s)

    def watch(self, width: int) -> None:
        """Draw pictures at most so wide; 0 for none."""
        self._width = width
        if self._pictures:
            self._pictures.width = width

    def keeps_pixels(self) -> bool:
        """Whether the picture is needed beside the result."""
        return self._findings.needs_pixels or bool(self._width)

    def say_counts(self, quiet_s: float) -> None:
        """Say the counts, if nothing has been said for so long; from any thread."""
        if time.monotonic() - self._said_s >= quiet_s and not self._ended:
            self._tell({"event": "counts", "counts": self.account.counts()})

    def _run(self) -> None:
        error: BuoyError | None = None
        try:
            if self._before:
                self._before.join(60.0)
                self._before = None
            self._begin(read_spec(self._spec))
        except Exception as fault:
            error = as_buoy_error(fault, f"stream {self.name}")
            self._refuse(error)
            self._stopping.wait()
        try:
            if error is None:
                self._work()
        except Exception as fault:
            error = as_buoy_error(fault, f"stream {self.name}")
            _log.exception("stream %s ended by a fault", self.name)
        finally:
            self._finish(error)

    def _begin(self, spec: StreamSpec) -> None:
        policy = policy_of(spec)
        self._findings = Findings(spec, policy, self._default)
        self.thresholds = self._findings.thresholds
        self._pictures = Pictures(spec)
        self._pictures.width = self._width
        progress = self._progress
        self.slot = Slot(
            policy,
            self.account,
            every_s=spec.every_s,
            since_s=progress.past.clock_s,
            ready=self._dispatch.wake,
            passed=progress.passed,
        )
        self._reader = Reader(spec, self.slot, self.account, self._on_state, progress=progress)
        self._dispatch.add(self)
        self._reader.start()

    def _refuse(self, error: BuoyError) -> None:
        _log.warning("stream %s cannot begin: %s", self.name, mask(str(error)))
        record = {key: mask(str(text)) for key, text in error.record().items()}
        self._tell_state("refused", mask(str(error)), time.time(), error=record)

    def _work(self) -> None:
        stopped = False
        while not self._ended:
            if self._stopping.is_set() and self._reader and not stopped:
                stopped = True
                self._reader.stop()
            if taken := self.order.collect(0.0 if self._is_due() else _PATIENCE_S):
                try:
                    self._report(taken)
                except Exception:
                    _log.exception("stream %s: a frame could not be reported", self.name)
                finally:
                    self.order.release()
                    self._dispatch.wake()
            while self._is_due():
                state = self._states.popleft().state
                self._tell_state(state.state, state.reason, state.since_s)
                self._ended = state.state == "ended"

    def _finish(self, error: BuoyError | None) -> None:
        """Leave nothing behind, whatever has happened."""
        if self._reader:
            with suppress(Exception):
                self._reader.stop()
        with suppress(ValueError):
            self._dispatch.remove(self)
        self.account.close("failed" if error else "shut")
        if not self._ended:
            with suppress(Exception):
                self._tell_state("ended", mask(str(error)) if error else "", time.time())
            self._ended = True

    def _on_state(self, state: State) -> None:
        """From the reader's thread, and in `stop` from ours."""
        self._states.append(_Told(state, self.account.settled().received))
        self.order.wake()

    def _is_due(self) -> bool:
        """Whether the next state is to be said now."""
        if not self._states:
            return False
        told = self._states[0]
        return told.state.state in _AT_ONCE or self.account.settled().done >= told.received

    def _report(self, taken: Taken) -> None:
        """Say what became of a frame."""
        frame, outcome = taken.frame, taken.outcome
        assert outcome is not None
        assert self._pictures is not None
        record: Record = outcome.record
        crossings: Report | None = None
        if isinstance(record, Failure):
            if self.slot.policy == "live":  # the next one is here in an instant
                self.account.dropped("undecodable" if record.error.class_ == "InputError" else "failed")
                return
            self.account.processed()
        else:
            try:
                record, crossings = self._findings.finish(frame, record, outcome.pixels)
            except Exception:
                self.account.dropped("failed")
                raise
            self.account.processed()
        picture = self._pictures.draw(record, outcome.pixels) if isinstance(record, Result) else b""
        head = {
            "event": "frame",
            "counts": self.account.counts(),
            "lag_ms": round((time.monotonic() - frame.arrived_s) * 1000, 1),
            "jpeg_bytes": len(picture),
            "crossings": crossings or {},
        }
        self._tell(head, encode_record(record) + picture, frame)

    def _tell_state(self, state: str, reason: str, since_s: float, **more: Any) -> None:
        head = {"event": "state", "state": state, "reason": reason, "since": utc(since_s), **more}
        self._tell({**head, "counts": self.account.counts()})

    def _tell(self, head: dict[str, Any], body: bytes = b"", frame: Frame | None = None) -> None:
        self._said_s = time.monotonic()
        if not self._muted:
            with self._telling:  # what was passed goes out before the frame that comes after it, or with it
                self._say({"stream": self.name, **head, **self._progress.news(frame)}, body)
