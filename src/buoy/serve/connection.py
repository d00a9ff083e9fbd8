"""One HTTP connection, with limits of time where uvicorn has none: heads that never end, bodies nobody waits for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ABORT", "Connection", "open_socket"]

#: Key of the scope under which stands what cuts the connection at once, for a client that takes nothing.
ABORT = "buoy.abort"

#: For the head of a request, and for what is left of a body after its answer.
_PATIENCE_S = 10.0
#: Connections at once; more are closed at once, before anything is read.
_MOST = 1000


class Connection(HttpToolsProtocol):
    """Closes itself when a client takes too long where it costs nobody but us.

    The body of a request that is being answered has its own limits; see `buoy.serve.upload`.
    """

    _patience: asyncio.TimerHandle | None = None
    _inside = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        if len(self.connections) > _MOST:
            transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first bytes of a head."""
        super().on_message_begin()
        self._inside = True
        self._wait()

    def on_headers_complete(self) -> None:
        """A request can be answered."""
        self._stop_waiting()
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort
        super().on_headers_complete()

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

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(_PATIENCE_S, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def open_socket(**settings: Any) -> asyncio.Protocol:
    """A connection that becomes a WebSocket; the library is loaded with the first of them."""
    from buoy.serve.socket import Socket

    return Socket(**settings)
