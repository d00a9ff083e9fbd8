"""The ASGI application: what happens around every request, and the router inside."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from buoy.errors import as_buoy_error
from buoy.serve import answers
from buoy.serve.access import is_open
from buoy.serve.refusals import NotReady, status_of
from buoy.serve.route import Route, Socket
from buoy.serve.routes import ROUTES, SOCKETS
from buoy.serve.service import Service

__all__ = ["App", "address_of", "request_id_of"]

_log = logging.getLogger("buoy.serve")

#: What begins an answer, by the kind of request.
_OPENINGS = {"http": ("http.response.start",), "websocket": ("websocket.accept", "websocket.http.response.start")}
_SAFE = ("GET", "HEAD", "OPTIONS")
#: Nginx's number for a client that went away before its answer; only in logs and counts.
_GONE = 499


class App:
    """Gives each request an id, finds it below the base path or without it, checks access, logs and counts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._router = Router(
            [
                StarletteRoute(route.path, _endpoint(service, route), methods=[route.method], name=route.path)
                for route in ROUTES
            ]
            + [WebSocketRoute(socket.path, _session(service, socket), name=socket.path) for socket in SOCKETS],
            redirect_slashes=False,
            default=_nowhere,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in _OPENINGS:
            return
        began_s = time.monotonic()
        headers = dict(scope["headers"])
        request_id = request_id_of(headers.get(b"x-request-id", b""))
        base = self._service.settings.base_path
        path = scope["path"]
        if base and (path == base or path.startswith(f"{base}/")):
            path = path[len(base) :] or "/"
        # The router raises instead of answering in a form of its own where there is an `app`.
        scope = {**scope, "path": path, "root_path": "", "app": self}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in _OPENINGS[scope["type"]]:
                status = message.get("status", 101)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            if not is_open(path):
                await self._service.access.admit(self._service.visit.with_cookie(headers), address_of(scope))
            if scope.get("method") not in _SAFE:
                self._service.visit.refuse_foreign(headers)
            await self._router(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:
            response = self._refuse(error, scope, path)
            if not status:
                await response(scope, receive, send_with_id)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011, "reason": "a fault of the service"})
        finally:
            self._note(scope, path, status or _GONE, time.monotonic() - began_s, request_id)

    def _refuse(self, error: Exception, scope: Scope, path: str) -> Response:
        extra: dict[str, str] = {}
        if isinstance(error, HTTPException):
            told, extra = answers.of_http(error, scope.get("method", "WebSocket"), path)
            response = answers.of_error(told)
            response.headers.update(extra)
            scope["buoy.error"] = type(told).__name__
            return response
        known = as_buoy_error(error, f"{scope.get('method', 'WebSocket')} {path}")
        if known is not error:
            _log.error("fault", exc_info=error)
        scope["buoy.error"] = known.record()["class"]
        self._service.metrics.refused.add(1, reason=scope["buoy.error"])
        # Of the two that share /v2, one has paths that end in a slash.
        as_text = path.startswith("/v2") and not path.endswith("/") and status_of(known) != 401
        response = answers.of_error(known, as_text=as_text)
        if any(key == b"sec-fetch-dest" and value != b"document" for key, value in scope["headers"]):
            del response.headers["WWW-Authenticate"]  # the page asks for the token itself
        return response

    def _note(self, scope: Scope, path: str, status: int, spent_s: float, request_id: str) -> None:
        route = scope.get("buoy.route", "other")
        method = scope.get("method", "WebSocket")
        self._service.metrics.requests.add(1, route=route, method=method, status=str(status))
        if not scope.get("buoy.viewer"):  # how long somebody watches is no time of an answer
            self._service.metrics.seconds.see(spent_s, route=route)
        if is_open(path) and status < 400:
            return  # probes
        fields: dict[str, Any] = {"id": request_id, "method": method, "path": path, "status": status}
        fields["ms"] = round(spent_s * 1000, 2)
        fields |= scope.get("buoy.spent", {})
        if "buoy.error" in scope:
            fields["error"] = scope["buoy.error"]
        _log.info("request", extra={"fields": fields})


def address_of(scope: Scope) -> str:
    """Where a request comes from."""
    client = scope.get("client")
    return client[0] if client else "unknown"


def _endpoint(service: Service, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.scope["buoy.route"] = route.path
        return await route.endpoint(service, request)

    return endpoint


def _session(service: Service, socket: Socket) -> Callable[[WebSocket], Awaitable[None]]:
    async def session(websocket: WebSocket) -> None:
        websocket.scope["buoy.route"] = socket.path
        websocket.scope["buoy.viewer"] = True
        if service.draining:
            raise NotReady("the service is about to end", "open it again: another instance may take it")
        await socket.session(service, websocket)

    return session


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)


def request_id_of(given: bytes) -> str:
    """The id that the caller gave, if it can be written in a line; else one of ours."""
    text = given.decode("latin-1")
    usable = 0 < len(text) <= 128 and text.isascii() and text.isprintable()
    return text if usable else secrets.token_hex(8)
