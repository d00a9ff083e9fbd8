"""Shares one engine among streams: who is looked at next, and in which order results go out.

A frame is chosen when a lane has begun its turn, not when it came: so it is the newest there is, and its age does not
grow when the source is faster than the machine. The streams together have no more turns in the engine than it has
lanes; requests over HTTP wait in the same line, so under load both get about one turn in two.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Protocol

from buoy.engine import Engine, Input, Outcome
from buoy.streams.frame import Frame
from buoy.streams.slot import Slot
from buoy.tasks import Thresholds

__all__ = ["Client", "Dispatch", "Order", "Taken"]

_log = logging.getLogger("buoy.streams")


class Client(Protocol):
    """One stream, as the dispatcher sees it."""

    slot: Slot
    order: Order
    #: Other than the model's.
    thresholds: Thresholds | None

    def keeps_pixels(self) -> bool:
        """Whether the picture is needed beside the result."""
        ...


class Taken:
    """A frame whose turn has come, and then its outcome."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        #: `None` until it is there.
        self.outcome: Outcome | None = None


class Order:
    """Puts the results of one stream back into the order in which its frames were taken.

    Bounded: no more frames are taken than `most` that nobody has collected.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._line: deque[Taken] = deque()
        self._changed = threading.Condition()
        self._woken = False

    def __len__(self) -> int:
        return len(self._line)

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken."""
        return len(self._line) < self._most

    def begin(self, frame: Frame) -> Taken:
        """One was taken."""
        taken = Taken(frame)
        with self._changed:
            self._line.append(taken)
        return taken

    def end(self, taken: Taken, outcome: Outcome) -> None:
        """Its outcome is there."""
        with self._changed:
            taken.outcome = outcome
            self._changed.notify_all()

    def collect(self, timeout_s: float) -> Taken | None:
        """The next, once its outcome is there; `None` if that, or a `wake`, did not come in time.

        Leave it in the line until `release`, so that it counts as long as it is worked on.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._due() or self._woken, timeout_s)
            self._woken = False
            return self._line[0] if self._due() else None

    def release(self) -> None:
        """What was collected has been dealt with."""
        with self._changed:
            self._line.popleft()

    def wake(self) -> None:
        """Let `collect` return, this time or the next."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _due(self) -> bool:
        return bool(self._line) and self._line[0].outcome is not None


class Dispatch:
    """Gives the engine's lanes to streams in turn. Safe from any thread; nothing here waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        #: The one that was served last stands at the end.
        self._clients: deque[Client] = deque()
        #: Turns that were asked for, and those of them that have not begun.
        self._turns = self._waiting = 0

    def add(self, client: Client) -> None:
        """One more stream."""
        with self._lock:
            self._clients.append(client)
        self.wake()

    def remove(self, client: Client) -> None:
        """It takes no more turns."""
        with self._lock:
            self._clients.remove(client)

    def wake(self) -> None:
        """Something may be possible that was not before: a frame came, a lane or a result is free."""
        with self._lock:
            frames = sum(len(client.slot) for client in self._clients if client.order.has_room)
            turns = min(frames - self._waiting, self._engine.lanes - self._turns)
            for _ in range(turns):
                self._turns += 1
                self._waiting += 1
        for _ in range(turns):
            self._engine.lend(self._turn)

    def _turn(self) -> None:
        """In a lane: look at one frame of the stream whose turn it is."""
        try:
            if chosen := self._choose():
                self._look(*chosen)
        finally:
            with self._lock:
                self._turns -= 1
            self.wake()

    def _choose(self) -> tuple[Client, Taken] | None:
        with self._lock:
            self._waiting -= 1
            for client in list(self._clients):
                if client.order.has_room and (frame := client.slot.take()):
                    self._clients.remove(client)
                    self._clients.append(client)
                    return client, client.order.begin(frame)
        return None

    def _look(self, client: Client, taken: Taken) -> None:
        frame = taken.frame
        input = Input(frame.title, frame.load(), frame.info())
        outcome = self._engine.look(input, thresholds=client.thresholds, keep_pixels=client.keeps_pixels())
        # The input holds the picture, which is not to wait for what is still to be done with the result.
        client.order.end(taken, outcome._replace(input=input._replace(source=b"")))
