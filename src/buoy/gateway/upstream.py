"""One HTTP/1.1 exchange with an instance of an exposed service: bodies pass in pieces, both ways at once.

Written on asyncio's streams and httptools' parser rather than with a client library: an answer may come, and must be
passed on, before the request's body is over (a refused upload), which those do not do.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import httptools

__all__ = ["Connection", "Exchange", "Lost", "connect"]

Headers = Sequence[tuple[bytes, bytes]]

_PIECE_BYTES = 65_536
_CONNECT_S = 5.0
#: Longer than this a connection is not kept for another request: servers close idle ones.
KEEP_S = 2.0


class Lost(Exception):
    """The instance is not there, or went away in the middle."""


class Connection(NamedTuple):
    """An open connection to an instance."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since_s: float
    #: Whether another request went over it before.
    used: bool = False

    def close(self) -> None:
        """Give it up; what was not sent yet is dropped."""
        self.writer.transport.abort()

    def alive(self) -> bool:
        """Tells whether another request may go over it."""
        idle = time.monotonic() - self.since_s < KEEP_S
        return idle and not self.reader.at_eof() and not self.writer.is_closing()


async def connect(port: int) -> Connection:
    """Connect to a port of this machine.

    Raises:
        Lost: nobody listens there.
    """
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE_BYTES)
    except OSError as error:  # TimeoutError is one
        raise Lost(f"port {port}: {error}") from None
    return Connection(reader, writer, time.monotonic())


class Exchange:
    """A request on its way, and its answer.

    Args:
        connection: nobody else uses it meanwhile.
        method: of the request.
        target: path and query, as they go over the wire.
        headers: all of them but those about the framing of the body.
        length: of the body in bytes; `None` for one of unknown length, sent in chunks; 0 for none.
    """

    def __init__(
        self, connection: Connection, method: str, target: bytes, headers: Headers, *, length: int | None = 0
    ) -> None:
        self.connection = connection
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._head_only = method == "HEAD"
        self._chunked = length is None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: deque[bytes] = deque()
        self._head = self._complete = self._keep = False
        self._sent = length == 0
        lines = [method.encode() + b" " + target + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
        if length is None:
            lines.append(b"transfer-encoding: chunked")
        elif length or method in ("POST", "PUT", "PATCH"):
            lines.append(b"content-length: %d" % length)
        connection.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")

    async def send(self, piece: bytes, *, last: bool) -> None:
        """Send more of the body, at the pace at which the instance takes it.

        Raises:
            ConnectionError: it takes no more; its answer may be here nevertheless.
        """
        writer = self.connection.writer
        if piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        if last and self._chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        self._sent = self._sent or last

    async def answer(self) -> None:
        """Wait for the head of the answer: `status` and `headers`.

        Raises:
            Lost: there is none.
        """
        while not self._head:
            if not await self._read():
                raise Lost("it closed the connection without an answer")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of the answer, as it comes.

        Raises:
            Lost: it was cut off.
        """
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self._complete:
                return
            if not await self._read():
                if self._framed:
                    raise Lost("its answer was cut off")
                return

    def reusable(self) -> Connection | None:
        """The connection, if both sides of this exchange are over and it is to stay open; it is ours no more."""
        if self._complete and self._sent and self._keep and not self.connection.writer.is_closing():
            return self.connection._replace(since_s=time.monotonic(), used=True)
        return None

    @property
    def _framed(self) -> bool:
        return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    async def _read(self) -> bool:
        try:
            data = await self.connection.reader.read(_PIECE_BYTES)
        except OSError:
            return False
        if not data:
            return False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise Lost("it changed the protocol, which nobody asked for") from None
        except httptools.HttpParserError as error:
            raise Lost(f"its answer is no HTTP: {error}") from None
        return True

    # What httptools calls

    def on_message_begin(self) -> None:
        """A head begins: another one after an interim answer (100, 103)."""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of it."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """It is over."""
        self.status = self._parser.get_status_code()
        self._head = self.status >= 200
        if self._head and (self._head_only or self.status in (204, 304)):
            self._complete = True

    def on_body(self, piece: bytes) -> None:
        """Part of the body, without its framing."""
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer is over."""
        if self._head:
            self._complete = True
            self._keep = not self._head_only and self._parser.should_keep_alive()


async def ask(port: int, path: str, headers: Headers, timeout_s: float) -> tuple[int, bytes]:
    """GET something small; the status is 0 where nobody answers in time.

    Args:
        port: of this machine.
        path: of the resource.
        headers: of the request.
        timeout_s: for all of it.
    """
    connection: Connection | None = None
    body = b""
    with suppress(Lost, OSError):
        try:
            async with asyncio.timeout(timeout_s):
                connection = await connect(port)
                exchange = Exchange(connection, "GET", path.encode(), [(b"host", b"127.0.0.1"), *headers])
                await exchange.answer()
                async for piece in exchange.pieces():
                    body += piece
                    if len(body) > 4 << 20:
                        break
                return exchange.status, body
        finally:
            if connection is not None:
                connection.close()
    return 0, b""
