"""Answers of instances, orderly and otherwise, byte by byte from a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from buoy.gateway.upstream import Connection, Exchange, Lost, ask, connect
from support.loop import run

OK = b"HTTP/1.1 200 OK\r\n"


async def exchanged(
    answer: bytes, look: Callable[[Exchange], Awaitable[object]], method: str = "GET", *, stay: bool = False
) -> object:
    """Ask a server that reads a head, says `answer` in two parts and closes (or stays)."""
    over, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        half = len(answer) // 2
        for part in (answer[:half], answer[half:]):
            writer.write(part)
            await asyncio.sleep(0.01)
        if stay:
            await over.wait()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connection = await connect(server.sockets[0].getsockname()[1])
        try:
            async with asyncio.timeout(30):
                return await look(Exchange(connection, method, b"/x", [(b"host", b"h")]))
        finally:
            over.set()
            connection.close()
            await closed.wait()


async def whole(exchange: Exchange) -> tuple[int, bytes, Connection | None]:
    await exchange.answer()
    body = b"".join([piece async for piece in exchange.pieces()])
    return exchange.status, body, exchange.reusable()


def answered(answer: bytes, method: str = "GET", *, stay: bool = False) -> tuple[int, bytes, bool]:
    found = run(exchanged(answer, whole, method, stay=stay))
    assert isinstance(found, tuple)
    status, body, connection = found
    return status, body, connection is not None


def test_every_framing_of_an_answer_is_understood() -> None:
    assert answered(OK + b"Content-Length: 3\r\n\r\nabc", stay=True) == (200, b"abc", True)
    assert answered(OK + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc") == (200, b"abc", False)
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert answered(chunked, stay=True) == (200, b"abc", True)
    assert answered(OK + b"\r\nuntil the end") == (200, b"until the end", False)
    assert answered(b"HTTP/1.0 200 OK\r\n\r\nold") == (200, b"old", False)


def test_answers_without_a_body_do_not_wait_for_one() -> None:
    assert answered(OK + b"Content-Length: 3\r\n\r\n", "HEAD", stay=True)[:2] == (200, b"")
    assert answered(b"HTTP/1.1 204 No Content\r\n\r\n", stay=True)[:2] == (204, b"")
    assert answered(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", stay=True)[:2] == (304, b"")


def test_interim_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    async def headers(exchange: Exchange) -> list[tuple[bytes, bytes]]:
        await exchange.answer()
        return exchange.headers

    final = OK + b"X-Final: 1\r\nContent-Length: 0\r\n\r\n"
    assert run(exchanged(hints + final, headers)) == [(b"X-Final", b"1"), (b"Content-Length", b"0")]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Content-Length: x\r\n\r\n",
    ],
)
def test_what_is_cut_off_or_no_http_is_told_apart_from_an_answer(answer: bytes) -> None:
    with pytest.raises(Lost):
        answered(answer)


def test_nobody_there_is_no_answer() -> None:
    async def both() -> tuple[int, bytes]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(Lost, match=str(port)):
            await connect(port)
        return await ask(port, "/", [], 5.0)

    assert run(both()) == (0, b"")
