"""WebSockets through to an instance: messages both ways, the end of either side passed on to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from buoy.gateway.instance import Instance, Passage
from buoy.gateway.upstream import Lost

__all__ = ["refuse_socket", "relay"]

_MESSAGE_LIMIT_BYTES = 64 << 20
#: RFC 6455, 7.4.1: "service restart"; and what stands for an end without a code, which cannot be sent.
_RESTART, _NORMAL = 1012, 1000
_NOT_SENT = (1005, 1006, 1015)


async def relay(
    instance: Instance,
    passage: Passage,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Connect to the instance, then let messages pass until one side ends.

    Raises:
        Lost: it does not listen; the client's handshake was not answered yet.
    """
    host = dict(headers).get(b"host", b"127.0.0.1").decode("latin-1")
    opening = connect(
        f"ws://{host}{target.decode('latin-1')}",
        host="127.0.0.1",
        port=instance.port,
        additional_headers=[(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers if n not in _BY_CLIENT],
        subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", [])] or None,
        user_agent_header=None,
        compression=None,
        proxy=None,
        ping_interval=None,  # those of either end pass for both
        max_size=_MESSAGE_LIMIT_BYTES,
        max_queue=4,
    )
    try:
        socket = await opening
    except InvalidStatus as error:
        answer = error.response
        kind = answer.headers.get("content-type", "text/plain")
        await refuse_socket(Response(answer.body, answer.status_code, media_type=kind), scope, receive, send)
        return
    except (OSError, InvalidHandshake, EOFError) as error:
        raise Lost(str(error)) from None
    try:
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept", "subprotocol": socket.subprotocol})
        await _both_ways(socket, passage, receive, send)
    finally:
        with suppress(Exception):
            await socket.close()


async def _both_ways(socket: ClientConnection, passage: Passage, receive: Receive, send: Send) -> None:
    tasks = [
        asyncio.create_task(_upwards(socket, receive)),
        asyncio.create_task(_downwards(socket, send)),
        asyncio.create_task(passage.cut.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if passage.cut.is_set() and not tasks[0].done() and not tasks[1].done():
            await send({"type": "websocket.close", "code": _RESTART, "reason": "the service is being replaced"})
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _upwards(socket: ClientConnection, receive: Receive) -> None:
    """From the client to the instance."""
    while True:
        message: dict[str, Any] = dict(await receive())
        if message["type"] == "websocket.disconnect":
            await socket.close(_sendable(message.get("code")), message.get("reason") or "")
            return
        text = message.get("text")
        with suppress(ConnectionClosed):  # the other direction sees why
            await socket.send(text if text is not None else message.get("bytes") or b"")


async def _downwards(socket: ClientConnection, send: Send) -> None:
    """From the instance to the client."""
    try:
        while True:
            message = await socket.recv()
            key = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", key: message})
    except ConnectionClosed:
        code = 1011 if socket.close_code == 1006 else _sendable(socket.close_code)
        await send({"type": "websocket.close", "code": code, "reason": socket.close_reason or ""})


def _sendable(code: int | None) -> int:
    return _NORMAL if code is None or code in _NOT_SENT else code


async def refuse_socket(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake with an ordinary response, so that its client learns why."""
    await receive()
    await response(scope, receive, send)


#: Headers that the client of WebSockets makes itself.
_BY_CLIENT = (b"host", b"content-length")
