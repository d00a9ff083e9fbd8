"""`/system/services/{name}/exposed/...`: passes requests on to instances of the service, as OSCAR's ingress does."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from buoy.errors import as_buoy_error
from buoy.gateway.exposed_access import (
    SESSION_COOKIE,
    Admission,
    admit,
    cookie_name,
    set_cookie,
    strip_cookies,
    token_in,
    without_token,
)
from buoy.gateway.exposed_socket import refuse_socket, relay
from buoy.gateway.exposure import Exposure
from buoy.gateway.http import Denied, Unavailable, shaped
from buoy.gateway.instance import Instance, Passage
from buoy.gateway.node import Node
from buoy.gateway.services import Service
from buoy.gateway.upstream import Connection, Exchange, Lost

__all__ = ["Proxy", "authenticate"]

Headers = list[tuple[bytes, bytes]]

#: RFC 9110, 7.6.1: about one connection, not about the message.
_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
#: `expect` has been answered by our server, `content-length` is set anew, the rest is said by us.
_OURS = {b"expect", b"content-length", b"forwarded"}
#: Upstream's servers wait so long for an answer.
_ANSWER_S = 300.0
_STREAMS = (b"text/event-stream", b"multipart/x-mixed-replace")
#: Paths of `buoy serve` about what only one instance of a service keeps.
_KEPT = "/streams"
_TRIES = 3


class Proxy:
    """An ASGI application for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request, or one WebSocket, on."""
        answered = False

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._pass(scope, receive, sending)
        except Exception as error:
            if answered:
                raise
            told = as_buoy_error(error, scope["path"])
            if scope["type"] == "websocket":
                await refuse_socket(shaped(told), scope, receive, send)
            else:
                await shaped(told)(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        service, exposure, admission = self._admit(request)
        rest = _rest(scope, exposure)
        if rest == b"" and scope["type"] == "http" and "text/html" in request.headers.get("accept", ""):
            # a page there would look for its parts one level too high
            asked = f"?{request.url.query}" if request.url.query else ""
            await RedirectResponse(f"{exposure.prefix}/{asked}", 307)(scope, receive, send)
            return
        query = without_token(scope["query_string"]) if admission.by_query else scope["query_string"]
        headers = _request_headers(scope, service, exposure, admission)
        fleet = self._node.exposed.fleet(service.name)
        keeper = exposure.default_command and rest.decode("latin-1").startswith(_KEPT)
        for attempt in range(1, _TRIES + 1):
            instance = await fleet.choose(keeper=keeper)
            with instance.passing() as passage:
                path = rest or b"/"
                if instance.exposure.whole_path:
                    path = exposure.prefix.encode() + rest
                target = path + (b"?" + query if query else b"")
                try:
                    if scope["type"] == "websocket":
                        passage.stream = True
                        await relay(instance, passage, target, headers, scope, receive, send)
                        return
                    connection = await instance.connection(fresh=attempt > 1)
                except Lost as error:
                    # it is about to be found dead; nothing was sent to it
                    if attempt == _TRIES:
                        raise Unavailable(f"service {service.name} does not answer: {error}", status=502) from None
                    await asyncio.sleep(0.1 * attempt)
                    continue
                cookie = set_cookie(service, exposure, secure=scope["scheme"] == "https") if admission.by_query else b""
                passing = _Passing(instance, passage, connection, scope, send, cookie)
                if await passing.run(target, headers, receive):
                    return

    def _admit(self, request: HTTPConnection) -> tuple[Service, Exposure, Admission]:
        node, name = self._node, request.path_params["service"]
        service = node.services.get(name)
        if service is None or service.exposure is None:
            node.exposed.fleet(name)  # says what is wrong
            raise AssertionError
        known = node.credentials, node.settings.loopback
        return service, service.exposure, admit(*known, service, service.exposure, request)


class _Passing:
    """One request on its way through one connection."""

    def __init__(
        self, instance: Instance, passage: Passage, connection: Connection, scope: Scope, send: Send, cookie: bytes
    ) -> None:
        self._instance, self._passage, self._connection = instance, passage, connection
        self._scope, self._send, self._cookie = scope, send, cookie
        self._taken = self._started = self._complete = False

    async def run(self, target: bytes, headers: Headers, receive: Receive) -> bool:
        """Pass it through; `False` if that may be tried again: nothing has happened yet.

        Raises:
            Unavailable: the instance ended, or does not answer.
        """
        exchange = Exchange(
            self._connection, self._scope["method"], target, headers, length=_length(self._scope["headers"])
        )
        tasks = [
            asyncio.create_task(self._answer(exchange)),
            asyncio.create_task(self._ask(exchange, receive)),
            asyncio.create_task(self._passage.cut.wait()),
        ]
        answering = tasks[0]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        except Lost as error:
            if self._started:
                return True  # what was sent cannot be taken back: our server closes the connection, as this one was
            if self._connection.used and not self._taken:
                return False
            name = self._instance.service.name
            raise Unavailable(
                f"the instance of {name} that worked on this went away: {error}", "send it again", status=502
            ) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            kept = exchange.reusable() if self._complete else None
            if kept is None:
                self._connection.close()
            else:
                self._instance.keep(kept)
        if self._passage.cut.is_set() and not self._complete:
            await self._end_cut()
        return True

    async def _answer(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await exchange.answer()
        except TimeoutError:
            raise Unavailable(f"no answer within {_ANSWER_S:g} s", status=504) from None
        if exchange.status == 429:
            self._instance.refused_s = time.monotonic()
        kind = next((value for name, value in exchange.headers if name.lower() == b"content-type"), b"")
        self._passage.stream = kind.startswith(_STREAMS)
        headers = _response_headers(exchange.headers)
        if self._cookie:
            headers.append((b"set-cookie", self._cookie))
        self._started = True
        await self._send({"type": "http.response.start", "status": exchange.status, "headers": headers})
        async for piece in exchange.pieces():
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._complete = True

    async def _ask(self, exchange: Exchange, receive: Receive) -> None:
        """Send the body, then wait until the client leaves; both end when the answer is over."""
        open_ = True
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body = message.get("body", b"")
            self._taken = self._taken or bool(body)
            if open_:
                try:
                    await exchange.send(body, last=not message.get("more_body", False))
                except OSError:
                    open_ = False  # it takes no more: its answer says why

    async def _end_cut(self) -> None:
        """The instance has to end: a stream ends in order, and its client comes again."""
        if not self._started:
            raise Unavailable("the service is being replaced", "send it again")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def authenticate(node: Node) -> Any:
    """`/system/services/{name}/auth`: what a proxy in front asks (forward authentication), and how a cookie is had."""

    async def endpoint(request: Request) -> Response:
        name = request.path_params["service"]
        service = node.services.get(name)
        if service is None or service.exposure is None:
            raise Denied("no exposed service of that name is yours", "see /system/services")
        scope = dict(request.scope)
        if token := token_in(request.headers.get("x-forwarded-uri", "")):
            scope["query_string"] = f"token={quote(token)}".encode()
        asked = HTTPConnection(scope)
        forward = Exposure(**{**vars(service.exposure), "access": "forward"})
        admit(node.credentials, False, service, forward, asked)
        secure = request.headers.get("x-forwarded-proto", scope["scheme"]) == "https"
        response = Response()
        response.headers.append("set-cookie", set_cookie(service, service.exposure, secure=secure).decode())
        return response

    return endpoint


def _rest(scope: Scope, exposure: Exposure) -> bytes:
    """What follows the prefix, as it came over the wire: '' or a path with a slash at its beginning."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    prefix = exposure.prefix.encode()
    if raw.startswith(prefix):
        return raw[len(prefix) :]
    rest: str = scope["path_params"].get("rest", "")
    return b"/" + quote(rest).encode()  # the prefix itself was escaped in an unusual way


def _length(headers: Headers) -> int | None:
    known = dict(headers)
    if b"content-length" in known:
        return int(known[b"content-length"])
    return None if b"transfer-encoding" in known else 0


def _named(headers: Headers) -> set[bytes]:
    """The headers that `Connection` says are about the connection too."""
    lists = [value for name, value in headers if name.lower() == b"connection"]
    return {part.strip().lower() for value in lists for part in value.split(b",")}


def _request_headers(scope: Scope, service: Service, exposure: Exposure, admission: Admission) -> Headers:
    given: Headers = scope["headers"]
    dropped = _HOP | _OURS | _named(given)
    headers, host = [], b""
    for name, value in given:
        if name in dropped or name.startswith((b"x-forwarded-", b"sec-websocket-")):
            continue
        if name == b"authorization" and admission.known:
            continue
        if name == b"host":
            host = value
        if name == b"cookie":
            value = strip_cookies(value, (SESSION_COOKIE, cookie_name(service.name)))
            if not value:
                continue
        headers.append((name, value))
    if admission.known:
        headers.append((b"authorization", b"Bearer " + service.token.encode()))
    client: str = scope["client"][0] if scope.get("client") else ""
    scheme: str = {"ws": "http", "wss": "https"}.get(scope["scheme"]) or scope["scheme"]
    said = (("for", client.encode()), ("proto", scheme.encode()), ("host", host), ("prefix", exposure.prefix.encode()))
    headers += [(f"x-forwarded-{name}".encode(), value) for name, value in said]
    return headers


def _response_headers(given: Headers) -> Headers:
    # our server says the date
    dropped = _HOP | _named(given) | {b"date"}
    return [(name, value) for name, value in given if name.lower() not in dropped]
