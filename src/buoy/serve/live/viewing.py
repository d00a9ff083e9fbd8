"""Answers that go on: pictures and events, until the stream ends, the viewer leaves, or takes nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from buoy.errors import BusyError
from buoy.serve.connection import ABORT

__all__ = ["PATIENCE_S", "Viewers", "Viewing", "within"]

#: A piece that a viewer has not taken within this time is its last.
PATIENCE_S = 15.0


class Viewers:
    """All that watch or listen: no more than `most` at once."""

    most = 200

    def __init__(self) -> None:
        self.number = 0
        self._cut: set[Callable[[], None]] = set()

    @contextmanager
    def one(self, scope: Scope) -> Iterator[None]:
        """Room for one more.

        Raises:
            BusyError: too many watch.
        """
        if self.number >= self.most:
            raise BusyError(f"{self.number} viewers are watching", "try again later", retry_after_s=10.0)
        cut: Callable[[], None] = scope.get(ABORT, lambda: None)
        self.number += 1
        self._cut.add(cut)
        try:
            yield
        finally:
            self.number -= 1
            self._cut.discard(cut)

    async def end(self, patience_s: float) -> None:
        """Wait for them to leave, now that their feeds have ended; cut off those that do not."""
        for _ in range(int(patience_s / 0.05)):
            if not self._cut:
                return
            await asyncio.sleep(0.05)
        for cut in list(self._cut):
            cut()


async def within(scope: Scope, sending: asyncio.Future[None]) -> bool:
    """Wait for what is being sent; a viewer that does not take it is cut off, and the answer is no."""
    done, _ = await asyncio.wait({sending}, timeout=PATIENCE_S)
    if done:
        sending.result()
        return True
    sending.cancel()
    scope.get(ABORT, lambda: None)()
    return False


class Viewing(Response):
    """Sends pieces as they come.

    Args:
        pieces: what to send; closed at the end.
        media_type: of the whole.
        room: taken for as long as it goes on.
    """

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str, room: Viewers) -> None:
        self._pieces = pieces
        self._room = room
        self.status_code = 200
        self.background = None
        self.init_headers({"Content-Type": media_type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of the two has had enough."""
        scope["buoy.account"].watching = True
        with self._room.one(scope):
            sending = asyncio.ensure_future(self._send(scope, send))
            leaving = asyncio.ensure_future(_gone(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                sending.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)
            if not sending.cancelled() and (error := sending.exception()):
                raise error

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            async for piece in self._pieces:
                message = {"type": "http.response.body", "body": piece, "more_body": True}
                if not await within(scope, asyncio.ensure_future(send(message))):
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
