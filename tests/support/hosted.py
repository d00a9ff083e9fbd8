"""Streams in this process, and everything that they say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from buoy.engine import Engine
from buoy.results import Record, Result, decode_record
from buoy.streams.host import Host
from support.tiny import STRIDE, make_model, picture_with_squares

__all__ = ["Hosted", "Said", "hosted", "moving", "write_video"]

#: Only catches what hangs.
_PATIENCE_S = 60.0


class Said(NamedTuple):
    """One message, taken apart."""

    head: dict[str, Any]
    record: Record | None
    jpeg: bytes

    @property
    def result(self) -> Result:
        """The record, which is no failure."""
        assert isinstance(self.record, Result), self.record
        return self.record


class Hosted:
    """A host, and what it has said so far."""

    def __init__(self, engine: Engine, crash: Callable[[dict[str, Any]], bool] = lambda head: False) -> None:
        self._changed = threading.Condition()
        self._said: list[Said] = []
        self._crash = crash
        self.engine = engine
        self.host = Host(engine, self._say)

    def open(self, stream: str, source: object, **spec: Any) -> None:
        """Begin a stream. Pictures of the tests stand still, so that is no flag unless asked for."""
        whole = {"name": stream, "source": str(source), "frozen_after_s": 0, "dark_below": 0, **spec}
        self.host.take({"op": "open", "stream": stream, "spec": whole}, b"")

    def push(self, stream: str, picture: bytes, **head: Any) -> None:
        """A frame of a client."""
        self.host.take({"op": "push", "stream": stream, **head}, picture)

    def tell(self, op: str, stream: str, **head: Any) -> None:
        """Any other message."""
        self.host.take({"op": op, "stream": stream, **head}, b"")

    def of(self, stream: str, event: str, state: str | None = None) -> list[Said]:
        """What was said so far."""
        with self._changed:
            return [
                each for each in self._said
                if each.head["stream"] == stream and each.head["event"] == event
                and state in (None, each.head.get("state"))
            ]  # fmt: skip

    def wait(self, stream: str, event: str, state: str | None = None, count: int = 1) -> list[Said]:
        """Wait until so many were said."""
        ends_s = time.monotonic() + _PATIENCE_S
        while len(found := self.of(stream, event, state)) < count:
            with self._changed:
                self._changed.wait(0.2)
            if time.monotonic() > ends_s:
                raise TimeoutError(
                    f"{len(found)} of {count} {event} {state}: {[each.head for each in self._said][-5:]}"
                )
        return found

    def ended(self, stream: str) -> dict[str, Any]:
        """Wait for the end of a stream; its counts."""
        counts: dict[str, Any] = self.wait(stream, "state", "ended")[-1].head["counts"]
        return counts

    def balances(self) -> bool:
        """Whether the counts did, in every message."""
        with self._changed:
            every = [each.head["counts"] for each in self._said]
        return all(
            each["received"] == each["processed"] + sum(each["dropped"].values()) + each["in_flight"]
            and each["in_flight"] >= 0
            for each in every
        )

    def _say(self, head: dict[str, Any], body: bytes = b"") -> None:
        if self._crash(head):
            raise RuntimeError("as asked for")
        at = len(body) - head.get("jpeg_bytes", 0)
        record = decode_record(body[:at]) if head["event"] == "frame" else None
        with self._changed:
            self._said.append(Said(head, record, body[at:]))
            self._changed.notify_all()


@contextmanager
def hosted(
    folder: Path, *, callers: int = 2, crash: Callable[[dict[str, Any]], bool] = lambda head: False, side: int = STRIDE
) -> Iterator[Hosted]:
    """A host with the tiny model for the time of a `with` block; afterwards every stream has ended and balances."""
    model = make_model(folder, side=side)
    with Engine.open(model, callers=callers) as engine:
        each = Hosted(engine, crash)
        try:
            yield each
        finally:
            each.host.close()
    assert each.balances()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(("stream-", "reader-"))]
    assert not left, left


def moving(number: int, *, size: int = 64, step: int = 2, row: int = 1) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB: frame `number` of a bright square that goes from left to right."""
    pixels = np.zeros((size, size, 3), np.uint8)
    left = (number * step) % size
    pixels[row * STRIDE : (row + 1) * STRIDE, left : left + STRIDE] = 255
    return pixels


def write_video(
    path: Path, frames: int, *, rate: int = 25, picture: Callable[[int], NDArray[np.uint8]] | None = None
) -> Path:
    """A real video: by default the bright square of the tiny model, in one cell after the other."""
    import av

    draw = picture or (lambda number: picture_with_squares((number // 4 % 4, number % 4)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", "bf": "0"})
        first = draw(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv444p"
        for number in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(draw(number), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
