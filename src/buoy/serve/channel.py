"""The service's end of the socket to an inference process.

To the process:   {"op": "look", "id", "name", "form", "expires_s", "score"?, "iou"?}  and the picture
                  {"op": "cancel", "id"}
                  {"op": "open" | "shut" | "push" | "watch", "stream", ...}  see `buoy.streams.host`
From the process: {"ready": true, "model": {...}, "lanes", "callers", "threads", ...}  or  {"ready": false, "error"}
                  {"id", "outcome": "done", "media_type", "spent": {...}, "version"}  and the answer
                  {"id", "outcome": "failed", "error": {...}, "spent": {...}}
                  {"id", "outcome": "cancelled" | "late", "spent": {}}
                  {"stream", "event", ...}  see `buoy.streams.host`
`expires_s` is on the clock of `time.monotonic()`, which all processes of a machine share: time that is left would not
run while the message waits to be read. `late` is a picture that no lane has taken by then, or would take.
The end of the stream asks the process to finish what it has and to leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from buoy import wire

__all__ = ["Channel", "message"]

_PIECE_BYTES = 256 << 10


def message(head: dict[str, Any], body: bytes = b"") -> Iterator[bytes | memoryview]:
    """A message in pieces, so that no second copy of a large picture waits to be sent.

    The first has the head and what is with it of the body: each piece wakes the process.
    """
    yield wire.frame(head, len(body)) + body[:_PIECE_BYTES]
    rest = memoryview(body)
    for at in range(_PIECE_BYTES, len(body), _PIECE_BYTES):
        yield rest[at : at + _PIECE_BYTES]


class Channel(asyncio.Protocol):
    """Messages both ways; what is to be sent waits here as pieces that nobody has made yet.

    Args:
        said: told of each message that comes.
    """

    def __init__(self, said: Callable[[dict[str, Any], bytes], None]) -> None:
        #: Set when the process is gone.
        self.over = asyncio.Event()
        self._said = said
        self._cutter = wire.Cutter()
        self._transport: asyncio.WriteTransport | None = None
        self._going: deque[Iterator[bytes | memoryview]] = deque()
        self._waited: set[asyncio.Event] = set()
        self._full = self._flushing = False

    def send(self, pieces: Iterator[bytes | memoryview]) -> None:
        """Send a message when those before it are on their way; without a process it is dropped."""
        self._going.append(pieces)
        self._flush()

    async def pass_on(self, pieces: Iterator[bytes | memoryview]) -> None:
        """As `send`, and wait until it is on its way, or will never be."""
        sent = asyncio.Event()
        self._waited.add(sent)
        self.send(_then(pieces, sent.set))
        try:
            await sent.wait()
        finally:
            self._waited.discard(sent)

    def close(self) -> None:
        """Let the process know that there is no more for it."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can begin."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """The process has said something."""
        for head, body in self._cutter.feed(data):
            self._said(head, body)

    def pause_writing(self) -> None:
        """The process does not read as fast as we write."""
        self._full = True

    def resume_writing(self) -> None:
        """It has read."""
        self._full = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or has been asked to go."""
        self._drop()
        self._full = False  # so that what is still sent is dropped at once, too
        self.over.set()

    def _flush(self) -> None:
        if self._flushing:  # what makes a piece may have something to send
            return
        self._flushing = True
        try:
            while self._transport and self._going and not self._full:
                if self._transport.is_closing():
                    self._drop()
                elif (piece := next(self._going[0], None)) is None:
                    self._going.popleft()
                else:
                    self._transport.write(piece)
        finally:
            self._flushing = False

    def _drop(self) -> None:
        self._going.clear()
        for sent in self._waited:
            sent.set()


def _then(pieces: Iterator[bytes | memoryview], done: Callable[[], object]) -> Iterator[bytes | memoryview]:
    yield from pieces
    done()
