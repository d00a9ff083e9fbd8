"""One address of the service and what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from buoy.serve.access import OPEN
from buoy.serve.service import Service

__all__ = ["JSON", "Route", "Socket"]

JSON = ("application/json",)


class Route(NamedTuple):
    """One address and what it does."""

    method: str
    path: str
    endpoint: Callable[[Service, Request], Awaitable[Response]]
    #: Parameters of the query.
    query: tuple[str, ...] = ()
    #: Media types that it takes; none without a body.
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = JSON
    tag: str = "buoy"
    #: Of an answer that says yes.
    status: int = 200

    @property
    def open(self) -> bool:
        """Whether it is answered without a token."""
        return self.path in OPEN

    @property
    def about(self) -> str:
        """A sentence on it."""
        return (self.endpoint.__doc__ or "").partition("\n")[0]


class Socket(NamedTuple):
    """One address of a WebSocket and what it does."""

    path: str
    session: Callable[[Service, WebSocket], Awaitable[None]]
