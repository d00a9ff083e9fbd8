"""Keeps one stream supplied with frames: connects, reads, notices silence, comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from buoy.errors import BuoyError, RefusedError, SourceError, UsageError
from buoy.streams.backoff import Backoff
from buoy.streams.frame import Frame, Picture, Skipped
from buoy.streams.progress import Progress
from buoy.streams.session import Session
from buoy.streams.slot import Slot, Tally
from buoy.streams.sources import mask, open_source
from buoy.streams.sources.address import answers
from buoy.streams.sources.push import PushSource
from buoy.streams.spec import StreamSpec

__all__ = ["Reader", "State"]

_log = logging.getLogger("buoy.streams")

#: Bytes without a picture for so long are worth a new connection. Some cameras send a key frame a minute.
_FRUITLESS_S = 120.0
#: How long after the beginning of an outage the server's port is watched, so that a short one stays short.
_WATCHED_S = 60.0
#: Sessions of one reader that hang in a call; with so many no further one is begun.
_MOST_HUNG = 2
_STOP_S = 2.0
#: How often a connection is looked at.
_LOOK_S = 0.5


_Name = Literal["connecting", "live", "gap", "ended", "refused"]


class State(NamedTuple):
    """How a stream is, from a moment on."""

    #: gap and refused: no frames since then; refused is tried again only now and then.
    state: _Name
    #: For people; empty where there is nothing to say. Never has a password in it.
    reason: str
    #: Seconds since 1970, UTC. Of a gap: when the last frame came (or the stream was opened).
    since_s: float


class Reader:
    """Reads one source in threads of its own: one that watches, and one for each connection.

    `ended` is told when the source has no more and every frame of it is in the slot, or after `stop`.

    Args:
        spec: the stream.
        slot: where frames go; closed by `stop`.
        tally: told of every frame received.
        on_state: told of each change, never twice of the same; it must not wait.
        progress: where an opening before has ended.
        backoff: between attempts; 1 s to 30 s by default.

    Raises:
        UsageError: the source is of no kind that is known, or needs an extra that is not installed.
    """

    def __init__(
        self,
        spec: StreamSpec,
        slot: Slot,
        tally: Tally,
        on_state: Callable[[State], None],
        *,
        progress: Progress | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        progress = progress or Progress()
        self._name = spec.name
        self._source = open_source(spec, progress)
        self._slot = slot
        self._tally = tally
        self._on_state = on_state
        self._backoff = backoff or Backoff()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._sessions: list[Session] = []
        self._session: Session | None = None
        self._state: State | None = None
        self._number = progress.past.number + 1
        self._ever = False
        self._last_s = time.time()
        self._thread = threading.Thread(target=self._run, name=f"reader-{spec.name}", daemon=True)

    @property
    def state(self) -> State | None:
        """The latest that was told; `None` before `start`."""
        return self._state

    def start(self) -> None:
        """Begin; does not wait."""
        self._tell("connecting", "", time.time())
        self._thread.start()

    def stop(self) -> None:
        """End, and tell `ended`. A call into a library that hangs is left to end by itself, within seconds."""
        self._stopping.set()
        self._slot.close()
        with self._lock:
            sessions, self._session = list(self._sessions), None
        for session in sessions:
            session.halt.set()
        ends_s = time.monotonic() + _STOP_S
        self._thread.join(_STOP_S)
        for session in sessions:
            session.join(max(0.0, ends_s - time.monotonic()))
        self._tell("ended", "", time.time())

    def push(self, jpeg: bytes, captured_s: float | None = None) -> None:
        """A frame of a client, for a source of the kind `push:`; never waits.

        Raises:
            UsageError: the source is of another kind.
        """
        if not isinstance(self._source, PushSource):
            raise UsageError(f"{self._name}: frames are handed to streams of the source push: only")
        self._source.give(jpeg, captured_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            session = self._begin()
            if session is None:
                return
            fault = self._watch(session)
            if self._stopping.is_set():
                return
            if fault is None or (session.gave and not self._source.again):
                self._tell("ended", mask(str(fault)) if fault else "", time.time())
                return
            refused = isinstance(fault, RefusedError)
            self._tell("refused" if refused else "gap", mask(str(fault)), self._last_s)
            self._pause(self._backoff.slow_s() if refused else self._backoff.next_s(), watch=not refused)

    def _begin(self) -> Session | None:
        """A new connection, once there are not too many that hang; `None` when it is time to end."""
        while True:
            with self._lock:
                self._sessions = [each for each in self._sessions if each.is_alive()]
                if self._stopping.is_set():
                    return None
                if len(self._sessions) < _MOST_HUNG:
                    session = Session(self._name, self._source, self._accept)
                    self._sessions.append(session)
                    self._session = session
                    session.start()
                    return session
            self._stopping.wait(self._backoff.low_s)

    def _watch(self, session: Session) -> BuoyError | None:
        """Wait until the connection ends or falls silent; why, or `None` if the source has no more."""
        silence_s = self._source.silence_s
        if silence_s is None:
            session.done.wait()
        while silence_s is not None and not session.done.is_set():
            silent_s, fruitless_s = session.silent_s(), session.fruitless_s()
            if silent_s >= silence_s:
                fault = SourceError(f"nothing came for {silence_s:g} s")
                if self._source.connects:
                    return self._give_up(session, fault)
                self._lacks(session, str(fault))
            elif fruitless_s >= _FRUITLESS_S:
                return self._give_up(session, SourceError(f"data without a picture for {_FRUITLESS_S:g} s"))
            elif fruitless_s >= silence_s and session.gave:
                self._lacks(session, "data comes, but no picture can be made of it")
            session.done.wait(max(0.01, min(silence_s - silent_s, _LOOK_S)))
        return session.fault

    def _lacks(self, session: Session, reason: str) -> None:
        """The connection stands, and there are no pictures: a gap, unless one came this instant."""
        with self._lock:
            if session.fruitless_s() >= (self._source.silence_s or 0.0):
                self._tell("gap", reason, self._last_s)

    def _give_up(self, session: Session, fault: SourceError) -> SourceError:
        """Leave a connection to itself: what it still brings is not ours any more."""
        with self._lock:
            if self._session is session:
                self._session = None
        session.halt.set()
        return fault

    def _pause(self, delay_s: float, *, watch: bool) -> None:
        """Wait for the next attempt. A server that was gone and is back ends the wait, early in an outage."""
        ends_s = time.monotonic() + delay_s
        gone = False
        while (left_s := ends_s - time.monotonic()) > 0 and not self._stopping.is_set():
            peer = self._source.peer
            if not watch or peer is None or time.time() - self._last_s > _WATCHED_S:
                self._stopping.wait(left_s)
                return
            up = answers(peer, min(1.0, left_s))
            if up and gone:
                return
            gone = not up
            self._stopping.wait(left_s if up else min(self._backoff.low_s, left_s))

    def _accept(self, session: Session, picture: Picture) -> bool:
        """A picture of a connection, in its thread; `False` if it shall end."""
        captured_s, image = picture.captured_s or time.time(), picture.image
        with self._lock:
            if self._session is not session:
                return False
            number, self._number = self._number, self._number + 1
            self._tally.received()
            if isinstance(image, Skipped):
                self._tally.dropped(image.reason)
                if image.reason != "undecodable":
                    session.found()  # there could have been a picture
                return True
            if isinstance(image, BuoyError) and self._slot.policy == "live":
                # The next one is here in an instant: a record of each fault would bury what matters.
                self._tally.dropped("undecodable")
                return True
            session.found()
            self._lives(captured_s)
        arrived_s = time.monotonic() if picture.arrived_s is None else picture.arrived_s
        place = picture.position_s, picture.name, picture.mark
        return self._slot.put(Frame(self._name, number, image, captured_s, arrived_s, *place))

    def _lives(self, captured_s: float) -> None:
        """A picture came."""
        self._last_s = time.time()
        if self._state and self._state.state == "live":
            return
        if self._ever:
            self._tally.reconnected()
        self._ever = True
        self._backoff.reset()
        self._tell("live", "", captured_s)

    def _tell(self, state: _Name, reason: str, since_s: float) -> None:
        with self._lock:
            told = self._state
            if told and (told.state == "ended" or told[:2] == (state, reason)):
                return
            self._state = State(state, reason, since_s)
            if state in ("gap", "refused"):
                _log.warning("stream %s: %s: %s", self._name, state, reason)
            elif state != "connecting":
                _log.info("stream %s: %s", self._name, state)
            self._on_state(self._state)
