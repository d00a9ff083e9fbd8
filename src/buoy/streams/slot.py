"""Where a reader leaves frames and a dispatcher takes them: one place for the newest, or a bounded line."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

from buoy.streams.frame import Frame

__all__ = ["Policy", "Slot", "Tally"]

Policy = Literal["live", "file"]

#: Frames that wait under the policy `file`: enough that reading goes on while one is looked at.
_AHEAD = 2


class Tally(Protocol):
    """The counters that reading adds to; safe from any thread."""

    def received(self) -> None:
        """A frame came."""
        ...

    def dropped(self, reason: str) -> None:
        """A frame that was received will not be looked at."""
        ...

    def reconnected(self) -> None:
        """A source that was lost gives frames again."""
        ...


class Slot:
    """Hands frames of one stream over.

    `live`: only the newest waits; the one that it replaces is dropped as `newer`. `file`: nothing is dropped, and
    `put` waits for room. Under both, frames between two that are due (`every_s`) are dropped as `sampling`, and what
    waits when the slot is closed as `shut`.

    Args:
        policy: live or file (`buoy.streams.sources.policy_of`).
        tally: told of every drop.
        every_s: one frame in so many seconds; 0 for all.
        since_s: the source's own time of the latest frame before these, under the policy `file`.
        ready: called after a frame has become available, in the reader's thread; it must not wait.
        passed: told of every frame that the policy or sampling leaves out.
    """

    def __init__(
        self,
        policy: Policy,
        tally: Tally,
        *,
        every_s: float = 0.0,
        since_s: float | None = None,
        ready: Callable[[], None] = lambda: None,
        passed: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        self.policy = policy
        self._tally = tally
        self._every_s = every_s
        self._ready = ready
        self._passed = passed
        self._due_s = since_s + every_s if policy == "file" and since_s is not None else None
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Leave a frame that was counted as received; `False` once the slot is closed."""
        if not self._is_due(frame):
            self._tally.dropped("sampling")
            self._passed(frame)
            return not self._closed
        replaced: list[Frame] = []
        with self._changed:
            if self.policy == "file":
                self._changed.wait_for(lambda: self._closed or len(self._frames) < _AHEAD)
            if closed := self._closed:
                self._tally.dropped("shut")
            else:
                if self.policy == "live":
                    replaced = list(self._frames)
                    self._frames.clear()
                self._frames.append(frame)
                self._changed.notify_all()
        for each in replaced:
            self._tally.dropped("newer")
            self._passed(each)
        if not closed:
            self._ready()
        return not closed

    def take(self, timeout_s: float = 0.0) -> Frame | None:
        """The frame whose turn it is, after waiting so long at most; `None` if there is none."""
        with self._changed:
            if timeout_s > 0:
                self._changed.wait_for(lambda: self._closed or bool(self._frames), timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Drop what waits; from now on nothing goes in."""
        with self._changed:
            self._closed = True
            left = len(self._frames)
            self._frames.clear()
            self._changed.notify_all()
        for _ in range(left):
            self._tally.dropped("shut")

    def _is_due(self, frame: Frame) -> bool:
        """Whether sampling lets it through. Called by the one thread that puts."""
        if not self._every_s:
            return True
        now_s = frame.arrived_s if self.policy == "live" else frame.clock_s
        # A clock that went back (a file older than the last, a camera's new start) begins a new count.
        if self._due_s is not None and self._due_s - self._every_s <= now_s < self._due_s:
            return False
        steady = self._due_s is not None and self._due_s <= now_s < self._due_s + self._every_s
        self._due_s = (self._due_s if steady and self._due_s is not None else now_s) + self._every_s
        return True
