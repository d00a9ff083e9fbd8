"""A stream that is read in this process, and everything it told."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from buoy.image import decode
from buoy.streams.backoff import Backoff
from buoy.streams.frame import Frame
from buoy.streams.progress import Progress
from buoy.streams.reader import Reader, State
from buoy.streams.slot import Slot
from buoy.streams.sources import policy_of
from buoy.streams.spec import StreamSpec
from support.stamp import Stamp, read_stamp

__all__ = ["Counts", "Reading", "nothing_left_behind", "reading", "stamped", "until"]

#: Only catches what hangs.
_PATIENCE_S = 60.0


class Counts:
    """What the account of a stream counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.frames = self.reconnects = 0
        self.drops: Counter[str] = Counter()

    def received(self) -> None:
        with self._lock:
            self.frames += 1

    def dropped(self, reason: str) -> None:
        with self._lock:
            self.drops[reason] += 1

    def reconnected(self) -> None:
        with self._lock:
            self.reconnects += 1


@dataclass
class Reading:
    """A reader and what comes out of it."""

    reader: Reader
    slot: Slot
    counts: Counts
    states: list[State]
    #: Frames that came out.
    taken: int = 0

    def take(self, count: int = 1) -> list[Frame]:
        """The next frames, as soon as they come."""
        frames: list[Frame] = []
        ends_s = time.monotonic() + _PATIENCE_S
        while len(frames) < count:
            frame = self.slot.take(0.2)
            if frame:
                frames.append(frame)
            elif time.monotonic() > ends_s:
                raise TimeoutError(f"{len(frames)} of {count} frames came; states: {self.states}")
        self.taken += len(frames)
        return frames

    def wait(self, state: str, count: int = 1) -> State:
        """Wait until a state was told so many times; the last of these."""
        until(lambda: self.told.count(state) >= count, lambda: f"{state} {count} times, but {self.states}")
        return [each for each in self.states if each.state == state][count - 1]

    def drain(self) -> list[Frame]:
        """Every frame until the stream ends."""
        frames: list[Frame] = []
        ends_s = time.monotonic() + _PATIENCE_S
        while "ended" not in self.told or len(self.slot):
            if frame := self.slot.take(0.05):
                frames.append(frame)
            if time.monotonic() > ends_s:
                raise TimeoutError(f"no end; states: {self.states}")
        self.taken += len(frames)
        return frames

    @property
    def told(self) -> list[str]:
        """The names of the states so far."""
        return [each.state for each in self.states]

    def balances(self) -> bool:
        """Whether every frame that was received is accounted for, after the end."""
        return self.counts.frames == self.taken + self.counts.drops.total() + len(self.slot)


@contextmanager
def reading(
    source: object, *, backoff: Backoff | None = None, progress: Progress | None = None, **spec: Any
) -> Iterator[Reading]:
    """Read a source for the time of a `with` block. The waits between attempts are short by default."""
    stream = StreamSpec(name="camera", source=str(source), **spec)
    counts, states = Counts(), list[State]()
    slot = Slot(policy_of(stream), counts, every_s=stream.every_s)
    backoff = backoff or Backoff(0.05, 0.2)
    reader = Reader(stream, slot, counts, states.append, progress=progress, backoff=backoff)
    reader.start()
    each = Reading(reader, slot, counts, states)
    try:
        yield each
    finally:
        reader.stop()
    assert each.told[-1] == "ended"
    assert each.told.count("ended") == 1
    assert each.balances(), (each.counts.frames, each.taken, each.counts.drops)


def until(true: Callable[[], bool], what: Callable[[], str] = lambda: "it") -> None:
    """Wait for something; fails where it does not come."""
    ends_s = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > ends_s:
            raise TimeoutError(f"did not come: {what()}")
        time.sleep(0.01)


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """No thread outlives its stream by more than the library's own time-out, and no descriptor does."""
    gc.collect()
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    until(lambda: not set(threading.enumerate()) - threads, lambda: f"the end of {threading.enumerate()}")
    gc.collect()
    until(lambda: _descriptors() <= descriptors, lambda: f"{descriptors} descriptors instead of {_descriptors()}")


def stamped(frame: Frame) -> Stamp:
    """Number and time in the picture of a frame."""
    loaded = frame.load()
    pixels = decode(loaded) if isinstance(loaded, bytes) else loaded
    assert isinstance(pixels, np.ndarray), pixels
    found = read_stamp(pixels)
    assert found is not None
    return found


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
