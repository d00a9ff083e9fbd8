"""One WebSocket, which is cut when its client has gone silent."""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from buoy.serve.connection import ABORT

__all__ = ["Socket"]

#: How long a client may go on sending after its message was refused.
_REFUSED_S = 10.0
#: For what is still to be written when the client has not answered a ping.
_LAST_S = 2.0


class Socket(WebSocketsSansIOProtocol):
    """As uvicorn's, whose close would wait for ever for a client that takes nothing."""

    def handle_connect(self, event: Request) -> None:
        """A client asks for the upgrade."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # else it was no proper request
            cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort

    def data_received(self, data: bytes) -> None:
        """More bytes; after a refused message they are thrown away."""
        if self.conn.parser_exc is None:
            super().data_received(data)

    def eof_received(self) -> None:
        """The client has sent its last byte."""
        if self.conn.parser_exc is not None:
            self.transport.close()

    def handle_parser_exception(self) -> None:
        """Say why the message is refused, and go on reading until the client hears it.

        Closing at once, as uvicorn does, resets the connection while the client still sends, and the reason is lost.
        """
        close = self.conn.close_sent
        assert close is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        # As long as there is a timer, uvicorn leaves the connection open when the application is done.
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.close_timer = self.loop.call_later(_REFUSED_S, self.transport.abort)
        else:  # TLS ends both directions at once
            self.close_timer = self.loop.call_later(_LAST_S, self.transport.close)

    def keepalive_timeout(self) -> None:
        """The ping was not answered."""
        super().keepalive_timeout()
        self.loop.call_later(_LAST_S, self.transport.abort)

    def shutdown(self) -> None:
        """The server is about to end."""
        super().shutdown()
        self.loop.call_later(_LAST_S, self.transport.abort)
