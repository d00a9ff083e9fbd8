"""One WebSocket, which is cut when its client has gone silent."""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from buoy.serve.connection import ABORT

__all__ = ["Socket"]

#: For what is still to be written when the client has not answered a ping.
_LAST_S = 2.0


class Socket(WebSocketsSansIOProtocol):
    """As uvicorn's, whose close would wait for ever for a client that takes nothing."""

    def handle_connect(self, event: Request) -> None:
        """A client asks for the upgrade."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # else it was no proper request
            cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort

    def keepalive_timeout(self) -> None:
        """The ping was not answered."""
        super().keepalive_timeout()
        self.loop.call_later(_LAST_S, self.transport.abort)

    def shutdown(self) -> None:
        """The server is about to end."""
        super().shutdown()
        self.loop.call_later(_LAST_S, self.transport.abort)
