"""The WebSockets of streams: results out, pictures in."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from buoy.errors import BuoyError, InputError
from buoy.serve.live.routes import HEARTBEAT_S
from buoy.serve.live.viewing import within
from buoy.serve.refusals import Conflict
from buoy.serve.service import Service

if TYPE_CHECKING:
    from buoy.serve.live.stream import Stream

__all__ = ["push", "results"]

#: Close codes of RFC 6455, and of our own (4000 and above).
_GOING_AWAY, _TAKEN_OVER, _GONE = 1001, 4409, 4404
_SOURCE = "push:"


async def results(service: Service, websocket: WebSocket) -> None:
    """Every event of a stream, as a JSON text each."""
    stream = service.live.find(websocket.path_params["stream"])
    with service.live.viewers.one(websocket.scope):
        await websocket.accept()
        await _first_of(_tell(websocket, stream), _leaving(websocket))


async def push(service: Service, websocket: WebSocket) -> None:
    """Pictures from a client: JPEG, each a binary message; `?answers=1` sends it what `results` would.

    A text message {"captured": RFC 3339} before a picture says when that was taken.
    """
    stream = service.live.find(websocket.path_params["stream"])
    if not stream.spec.source.startswith(_SOURCE):
        raise Conflict(
            f"the stream {stream.spec.name} has a source of its own", f"make one whose source is `{_SOURCE}`"
        )
    with service.live.viewers.one(websocket.scope):
        await websocket.accept()
        taken_over = stream.pushes.begin()
        tasks = [_receive(websocket, stream), taken_over.wait(), stream.gone.wait()]
        if websocket.query_params.get("answers") in ("1", "true"):
            tasks.append(_tell(websocket, stream))
        try:
            await _first_of(*tasks)
            if taken_over.is_set():
                await websocket.close(_TAKEN_OVER, "another client sends now")
            elif stream.gone.is_set():
                await websocket.close(_GONE, "the stream has ended")
        finally:
            stream.pushes.end(taken_over)


async def _receive(websocket: WebSocket, stream: Stream) -> None:
    captured: dict[str, str] = {}
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if (text := message.get("text")) is not None:
                captured = _captured(text)
                continue
            picture: bytes = message["bytes"]
            if not picture.startswith(b"\xff\xd8\xff"):
                raise InputError("this is no JPEG", "send each picture as a binary message that holds a JPEG file")
        except BuoyError as error:
            await websocket.send_text(json.dumps({"event": "error", "error": error.record()}))
            continue
        # waits while the process has not taken the one before, so that no picture piles up here
        await stream.looker.pass_on({"op": "push", "stream": stream.spec.name, **captured}, picture)
        captured = {}


def _captured(text: str) -> dict[str, str]:
    from datetime import datetime

    try:
        moment = json.loads(text)["captured"]
        datetime.fromisoformat(moment)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(
            "this text is not understood", 'send {"captured": "2026-01-31T12:00:00.000Z"}, or pictures alone'
        ) from None
    return {"captured": moment}


async def _tell(websocket: WebSocket, stream: Stream) -> None:
    """Send what happens until there is no more."""
    first: Any = [("state", stream.encode("state", stream.state_event()))]
    number = stream.events.last
    while True:
        for _, text in first:
            if not await within(websocket.scope, asyncio.ensure_future(websocket.send_text(text.decode()))):
                return
        news = await stream.events.after(number, HEARTBEAT_S)  # pings keep a silent one open
        first = [("missed", stream.encode("missed", {"count": news.missed}))] if news.missed else []
        first += [event for _, event in news.items]
        number = news.items[-1][0] if news.items else number
        if news.ended and not news.items:
            await websocket.close(_GOING_AWAY, "the stream has ended")
            return


async def _leaving(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _first_of(*tasks: Any) -> None:
    """Run all until one ends, then none."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        error = task.exception()
        if error and not isinstance(error, WebSocketDisconnect):
            raise error
