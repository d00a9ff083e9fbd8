"""Frames that a client hands in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator

from buoy.errors import InputError
from buoy.streams.frame import Picture, Skipped
from buoy.streams.sources.halt import Halt

__all__ = ["MOST_BYTES", "PushSource"]

#: Frames that wait for the reader. It takes them at once, except under the policy `file`, which makes it wait.
_AHEAD = 16
#: Of one picture; nothing that a camera takes comes near.
MOST_BYTES = 64 << 20


class PushSource:
    """`push:`: what `give` gets. Pictures that find no room are dropped as `full`."""

    again = True
    connects = False

    def __init__(self, silence_s: float) -> None:
        self.silence_s: float | None = silence_s
        self.peer = None
        self._waiting: deque[Picture] = deque()
        self._full = 0
        self._changed = threading.Condition()

    def give(self, image: bytes, captured_s: float | None) -> None:
        """One picture, from any thread; never waits."""
        large = len(image) > MOST_BYTES
        error = InputError(f"the frame has {len(image):,} bytes; the limit is {MOST_BYTES:,}", "send a smaller picture")
        picture = Picture(error if large else image, captured_s=captured_s, arrived_s=time.monotonic())
        with self._changed:
            if len(self._waiting) < _AHEAD:
                self._waiting.append(picture)
            else:
                self._full += 1
            self._changed.notify_all()

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
        """What was given, in its order."""
        halt.wakes(self._wake)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting or self._full) or halt.is_set())
                if halt.is_set():
                    return
                full, self._full = self._full, 0
                picture = self._waiting.popleft() if self._waiting else None
            if picture:
                yield picture
            for _ in range(full):
                yield Picture(Skipped("full"))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
