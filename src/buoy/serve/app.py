"""The ASGI application: what happens around every request, and the router inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from buoy.serve import answers
from buoy.serve.access import is_open
from buoy.serve.account import Account
from buoy.serve.refusals import NotReady, status_of
from buoy.serve.route import Route, Socket
from buoy.serve.routes import ROUTES, SOCKETS
from buoy.serve.service import Service

__all__ = ["App", "address_of"]

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
        headers = dict(scope["headers"])
        base = self._service.settings.base_path
        path = scope["path"]
        if base and (path == base or path.startswith(f"{base}/")):
            path = path[len(base) :]
        path = f"/{path.lstrip('/')}"  # the marketplace's user interface asks for BASE///v2/models/NAME/
        service = self._service
        account = Account(service.metrics, service.tracing, scope.get("method", "WebSocket"), path, headers)
        # The router raises instead of answering in a form of its own where there is an `app`.
        scope = {**scope, "path": path, "root_path": "", "app": self, "buoy.account": account}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in _OPENINGS[scope["type"]]:
                status = message.get("status", 101)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", account.id.encode())]
            await send(message)

        try:
            if not is_open(path):
                await service.access.admit(service.visit.with_cookie(headers), address_of(scope))
            if scope.get("method") not in _SAFE:
                service.visit.refuse_foreign(headers)
            await self._router(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:
            response = self._refuse(error, account, scope, path)
            if not status:
                await response(scope, receive, send_with_id)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011, "reason": "a fault of the service"})
        finally:
            status = status or _GONE
            account.close(status, quiet=is_open(path) and status < 400)  # probes

    def _methods(self, path: str) -> list[str]:
        """What can be done at a path; the router itself knows only of its first route that fits."""
        routes = [route for route in self._router.routes if isinstance(route, StarletteRoute)]
        fitting = [route for route in routes if route.path_regex.match(path)]
        return sorted({method for route in fitting for method in route.methods or ()})

    def _refuse(self, error: Exception, account: Account, scope: Scope, path: str) -> Response:
        if isinstance(error, HTTPException):
            nowhere, headers = answers.of_http(error, scope.get("method", "WebSocket"), path, self._methods(path))
            response = answers.of_error(account.refused(nowhere))
            response.headers.update(headers)
            return response
        told = account.refused(error)
        # Of the two that share /v2, one has paths that end in a slash, or in what the other has not.
        as_text = path.startswith("/v2") and not path.endswith(("/", "/predict")) and status_of(told) != 401
        response = answers.of_error(told, as_text=as_text)
        if any(key == b"sec-fetch-dest" and value != b"document" for key, value in scope["headers"]):
            del response.headers["WWW-Authenticate"]  # the page asks for the token itself
        return response


def address_of(scope: Scope) -> str:
    """Where a request comes from."""
    client = scope.get("client")
    return client[0] if client else "unknown"


def _endpoint(service: Service, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.scope["buoy.account"].route = route.path
        return await route.endpoint(service, request)

    return endpoint


def _session(service: Service, socket: Socket) -> Callable[[WebSocket], Awaitable[None]]:
    async def session(websocket: WebSocket) -> None:
        account: Account = websocket.scope["buoy.account"]
        account.route, account.watching = socket.path, True
        if service.draining:
            raise NotReady("the service is about to end", "open it again: another instance may take it")
        await socket.session(service, websocket)

    return session


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)
