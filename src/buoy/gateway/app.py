"""All routes of the gateway: OSCAR's API, the webhook, signed URLs, the page."""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from buoy.errors import BuoyError
from buoy.gateway.auth import bearer
from buoy.gateway.buckets import Buckets
from buoy.gateway.events import records
from buoy.gateway.exposed_proxy import Proxy, authenticate
from buoy.gateway.http import Denied, json_body, on_error, on_no_route, refuse_foreign, sync
from buoy.gateway.invoke import Invoke
from buoy.gateway.logs import Logs
from buoy.gateway.node import Node
from buoy.gateway.page import page_routes
from buoy.gateway.system import System, health

__all__ = ["build"]

Endpoint = Callable[[Request], Awaitable[Response]]
_CALLS = 1000


def build(node: Node) -> ASGIApp:
    """The ASGI application for a node."""
    calls: deque[dict[str, Any]] = deque(maxlen=_CALLS)
    routes: list[BaseRoute] = [
        Route("/health", health),
        *_system_routes(node, calls),
        *_invoke_routes(node, calls),
        *_exposed_routes(node),
        Route("/events/minio", _webhook(node), methods=["POST"]),
        Route("/object/{bucket}/{key:path}", Buckets(node).object, methods=["GET", "PUT"]),
        *page_routes(node),
    ]
    handlers: dict[Any, Any] = {HTTPException: on_no_route, BuoyError: on_error, OSError: on_error, Exception: on_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # `_Door` takes either
    return _Door(app)


def _system_routes(node: Node, calls: deque[dict[str, Any]]) -> list[Route]:
    system, logs, buckets = System(node, calls), Logs(node), Buckets(node)
    table: list[tuple[str, str, Endpoint]] = [
        ("GET", "/system/info", system.info),
        ("GET", "/system/config", system.config),
        ("GET", "/system/status", system.status),
        ("GET", "/system/services", system.services),
        ("POST", "/system/services", system.create),
        ("PUT", "/system/services", system.update),
        ("GET", "/system/services/{service}", system.service),
        ("DELETE", "/system/services/{service}", system.delete),
        ("GET", "/system/services/{service}/deployment", system.deployment),
        ("GET", "/system/services/{service}/deployment/logs", system.deployment_logs),
        ("POST", "/system/services/{service}/stop", system.stop),
        ("POST", "/system/services/{service}/start", system.start),
        ("POST", "/system/services/{service}/restart", system.restart),
        ("GET", "/system/logs", system.access_log),
        ("GET", "/system/logs/{service}", logs.jobs),
        ("DELETE", "/system/logs/{service}", logs.delete_jobs),
        ("GET", "/system/logs/{service}/{job}", logs.log),
        ("DELETE", "/system/logs/{service}/{job}", logs.delete_job),
        ("GET", "/system/buckets", buckets.buckets),
        ("POST", "/system/buckets", buckets.create),
        ("PUT", "/system/buckets", buckets.update),
        ("GET", "/system/buckets/{bucket}", buckets.bucket),
        ("DELETE", "/system/buckets/{bucket}", buckets.delete),
        ("POST", "/system/buckets/{bucket}/presign", buckets.presign),
    ]
    return [Route(path, _admin(node, endpoint), methods=[method]) for method, path, endpoint in table]


def _invoke_routes(node: Node, calls: deque[dict[str, Any]]) -> list[Route]:
    invoke = Invoke(node, calls)
    return [
        Route("/run/{service}", _caller(node, invoke.run), methods=["POST"]),
        Route("/job/{service}", _caller(node, invoke.job), methods=["POST"]),
    ]


def _exposed_routes(node: Node) -> list[BaseRoute]:
    proxy = Proxy(node)
    routes: list[BaseRoute] = [Route("/system/services/{service}/auth", authenticate(node))]
    for path in ("/system/services/{service}/exposed", "/system/services/{service}/exposed/{rest:path}"):
        routes += [Route(path, proxy), WebSocketRoute(path, proxy)]
    return routes


def _admin(node: Node, endpoint: Endpoint) -> Endpoint:
    async def checked(request: Request) -> Response:
        refuse_foreign(request)
        if not node.credentials.admin(request.headers.get("authorization", "")):
            raise _unknown_caller(node)
        return await endpoint(request)

    return checked


def _caller(node: Node, endpoint: Endpoint) -> Endpoint:
    """The service's token, or the administrator (whom upstream refuses here)."""

    async def checked(request: Request) -> Response:
        refuse_foreign(request)
        header = request.headers.get("authorization", "")
        service = node.services.get(request.path_params["service"])
        # as long a comparison for a service that is not there
        token = service.token if service else "0" * 64
        given = hmac.compare_digest(bearer(header).encode(), token.encode()) and service is not None
        if not given and not node.credentials.admin(header):
            raise _unknown_caller(node)
        return await endpoint(request)

    return checked


def _unknown_caller(node: Node) -> Denied:
    return Denied("who you are is not known here", f"user and password are in {node.settings.data}/credentials.yaml")


def _webhook(node: Node) -> Endpoint:
    """Events of MinIO: answered with 200 only once they are in the queue."""

    def deliver(request: Request, data: bytes) -> Response:
        header = bearer(request.headers.get("authorization", ""))
        if not hmac.compare_digest(header.encode(), node.credentials.event_token.encode()):
            raise Denied("the event's token is not ours", "set MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_<id>")
        node.receive(records(json_body(data)))
        return Response()

    return sync(deliver)


class _Door:
    """Takes paths with a slash at the end (oscar-python asks for `/system/config/`), and adds headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if _is_exposed(path):
                await self._app(scope, receive, send)  # its paths and headers are the service's own, as on OSCAR
                return
            if path != "/" and path.endswith("/") and not path.startswith(("/object/", "/page/objects/", "/ui/")):
                scope = {**scope, "path": path.rstrip("/")}
        await self._app(scope, receive, _with_headers(send))


def _is_exposed(path: str) -> bool:
    parts = path.split("/", 5)
    return len(parts) > 4 and parts[1:3] == ["system", "services"] and parts[4] == "exposed"


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((name, value) for name, value in _SECURITY if name not in present),
            ]
        await send(message)

    return sending


_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
_SECURITY = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
