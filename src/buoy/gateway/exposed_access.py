"""Who may use an exposed service, by OSCAR's three modes, and what the service is told of the caller.

`none`: everybody who reaches us, so only while we listen on loopback; the service may have a rule of its own. `basic`
(`set_auth`): the service's name with its token, or the token as Bearer. `forward`: that, `?token=`, and the cookie
which that sets. In all of them the administrator, and the browser that is signed in to the page of `buoy up`.
"""

from __future__ import annotations

import base64
import hmac
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import HTTPConnection

from buoy.gateway.auth import Credentials, bearer
from buoy.gateway.exposure import Exposure
from buoy.gateway.http import Denied
from buoy.gateway.services import Service

__all__ = [
    "SESSION_COOKIE", "Admission", "admit", "cookie_name", "set_cookie", "strip_cookies", "token_in", "without_token",
]  # fmt: skip

#: Of the page of `buoy up`.
SESSION_COOKIE = "buoy_session"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Admission(NamedTuple):
    """A caller that may pass."""

    #: Who they are was shown; then the service gets its own token, whatever they showed.
    known: bool
    #: They showed the token in the address: it goes no further, and a cookie stands for it from now on.
    by_query: bool = False


def cookie_name(service: str) -> str:
    """The cookie of a service, as upstream calls it."""
    return f"oscar_service_{service.replace('-', '_')}_auth"


def admit(
    credentials: Credentials, loopback: bool, service: Service, exposure: Exposure, request: HTTPConnection
) -> Admission:
    """Let a caller pass, or not.

    Args:
        credentials: of `buoy up`.
        loopback: whether only this machine reaches us.
        service: exposed.
        exposure: its block, which names the mode.
        request: a request, or the beginning of a WebSocket.

    Raises:
        Denied: 401 without proof, 403 for what another site's page has a browser send.
    """
    header = request.headers.get("authorization", "")
    if _same(bearer(header), service.token):
        return Admission(known=True)
    if credentials.admin(header) or _basic(header, service):
        _refuse_foreign(request, must_tell=False)
        return Admission(known=True)
    if exposure.access == "forward":
        if _same(request.query_params.get("token", ""), service.token):
            return Admission(known=True, by_query=True)
        if _same(_cookie(request, cookie_name(service.name)), service.token):
            _refuse_foreign(request, must_tell=True)
            return Admission(known=True)
    if credentials.in_session(_cookie(request, SESSION_COOKIE)):
        _refuse_foreign(request, must_tell=True)
        return Admission(known=True)
    if exposure.access == "none" and loopback and _host(request) in _LOOPBACK:
        _refuse_foreign(request, must_tell=False)
        return Admission(known=False)
    raise Denied(
        f"service {service.name} asks who you are",
        "send `Authorization: Bearer TOKEN`, or Basic with the service's name and its token",
    )


def set_cookie(service: Service, exposure: Exposure, *, secure: bool) -> bytes:
    """The header value that leaves the service's cookie with a browser."""
    parts = [f"{cookie_name(service.name)}={service.token}", f"Path={exposure.prefix}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if secure else parts).encode()


def without_token(query: bytes) -> bytes:
    """The query without the parameter `token`, everything else as it was."""
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] != b"token")


def token_in(address: str) -> str:
    """The parameter `token` of an address; '' if there is none."""
    return dict(parse_qsl(urlsplit(address).query)).get("token", "")


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _basic(header: str, service: Service) -> bool:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(given, f"{service.name}:{service.token}".encode())


def _cookie(request: HTTPConnection, name: str) -> str:
    return request.cookies.get(name, "")


def _host(request: HTTPConnection) -> str:
    return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""


def _refuse_foreign(request: HTTPConnection, *, must_tell: bool) -> None:
    """As `buoy.gateway.http.refuse_foreign`, for WebSockets too: they are no GET to a browser's same-origin rule."""
    origin = request.headers.get("origin")
    safe = request.scope["type"] == "http" and request.scope["method"] in ("GET", "HEAD")
    if safe or (origin is None and not must_tell):
        return
    if origin is None or urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Denied(f"a request from {origin or 'nowhere'} may not change anything here", status=403)


def strip_cookies(header: bytes, names: tuple[str, ...]) -> bytes:
    """A Cookie header without some cookies, which are ours and no business of the service."""
    kept = [part for part in header.split(b";") if part.partition(b"=")[0].strip().decode("latin-1") not in names]
    return b";".join(kept).strip()
