"""One HTTP connection, with limits where uvicorn has none: endless heads, bodies nobody wants, answers nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ABORT", "LEAVING", "Connection", "Leaving", "open_socket"]

#: Key of the scope under which stands what cuts the connection at once, for a client that takes nothing.
ABORT = "buoy.abort"

#: Key of the scope under which stands the `Leaving` of the connection.
LEAVING = "buoy.leaving"

#: For the head of a request, and for what is left of a body after its answer.
_PATIENCE_S = 10.0
#: An answer of which a client has taken nothing for so long is its last; the same that viewers of streams have.
_UNTAKEN_S = 15.0
#: Of a head: its address and all its fields.
_HEAD_BYTES = 64 << 10
#: Connections at once; more are closed at once, before anything is read.
_MOST = 1000


class Leaving:
    """Whether the client has left, and who is told as soon as it does.

    ASGI says it by `receive`, which takes a task that waits for each request.
    """

    def __init__(self, listen: Callable[[], None]) -> None:
        self.gone = False
        self._listen = listen
        self._told: list[Callable[[], object]] = []

    @contextmanager
    def told(self, leave: Callable[[], object]) -> Iterator[None]:
        """Have `leave` called when the client leaves within the block, or has left before."""
        self._listen()  # uvicorn stops reading when a body is large, and then hears of no end
        self._told.append(leave)
        if self.gone:
            leave()
        try:
            yield
        finally:
            self._told.remove(leave)

    def over(self) -> None:
        """The client has left."""
        self.gone = True
        for leave in tuple(self._told):
            leave()


class Connection(HttpToolsProtocol):
    """Closes itself when a client takes too long where it costs nobody but us.

    The body of a request that is being answered has its own limits; see `buoy.serve.upload`.
    """

    _patience: asyncio.TimerHandle | None = None
    _watching: asyncio.TimerHandle | None = None
    _inside = False
    #: Heads that have begun, and whether the latest is incomplete; what came of it so far, and what of it was read.
    _heads = 0
    _in_head = False
    _head_bytes = 0
    _field_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._leaving = Leaving(self.flow.resume_reading)
        if len(self.connections) > _MOST:
            transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)
        self._leaving.over()

    def data_received(self, data: bytes) -> None:
        """More bytes; those of a head that is not complete are kept by the parser, so they are counted here."""
        before = self._heads if self._in_head else None
        super().data_received(data)
        if self._in_head and self._heads == before:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_url(self, url: bytes) -> None:
        """The address, or a piece of it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field, of the head or after the last piece of a body."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """The first bytes of a head."""
        super().on_message_begin()
        self._heads, self._in_head, self._head_bytes, self._field_bytes = self._heads + 1, True, 0, 0
        self._inside = True
        self._wait()

    def on_headers_complete(self) -> None:
        """A request can be answered."""
        self._in_head = False
        self._stop_waiting()
        cast(dict[str, Any], self.scope).update({ABORT: self.transport.abort, LEAVING: self._leaving})
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body; the first one is kept as it is, where uvicorn copies it twice."""
        if self.cycle.body or self.cycle.response_complete or self.parser.should_upgrade():
            super().on_body(body)
        else:
            self.cycle.body = body  # type: ignore[assignment]  # until it is asked for, or gets longer
            super().on_body(b"")

    def on_message_complete(self) -> None:
        """Its body is here."""
        self._inside = False
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It has been answered, perhaps before its body was here."""
        super().on_response_complete()
        if self._inside:
            self._wait()
        self._watch()  # uvicorn has written all of it, and closes only when the client has taken it

    def pause_writing(self) -> None:
        """The client takes less than we write: what comes next waits, so what is left can only become less."""
        super().pause_writing()
        self._watch()

    def handle_websocket_upgrade(self) -> None:
        """The connection becomes a WebSocket, which has limits of its own."""
        self._stop_watching()
        super().handle_websocket_upgrade()

    def _count(self, size_bytes: int) -> None:
        self._field_bytes += size_bytes
        if self._field_bytes > _HEAD_BYTES:
            raise ValueError("the head is too large")  # the parser stops, and uvicorn answers 400

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(_PATIENCE_S, self.timeout_keep_alive_handler)

    def _watch(self) -> None:
        """See after a while whether the client has taken any of what is left to be written."""
        self._stop_watching()
        if left := self.transport.get_write_buffer_size():
            self._watching = self.loop.call_later(_UNTAKEN_S, self._see, left)

    def _see(self, before: int) -> None:
        # While an answer is being written that the client takes, what is left may grow.
        only_less = self.flow.write_paused or self.cycle.response_complete
        if only_less and self.transport.get_write_buffer_size() >= before:
            self.transport.abort()  # a close would wait for the client
        else:
            self._watch()

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def open_socket(**settings: Any) -> asyncio.Protocol:
    """A connection that becomes a WebSocket; the library is loaded with the first of them."""
    from buoy.serve.socket import Socket

    return Socket(**settings)
