"""Answers in the form that OSCAR's clients read, and errors in ours."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from buoy.errors import (
    BuoyError,
    ExistsError,
    InputError,
    JobError,
    MissingError,
    ServiceError,
    StoreError,
    UsageError,
    as_buoy_error,
)

__all__ = [
    "Denied", "Refused", "TooLarge", "Unavailable", "body", "compact", "error_response", "json_body", "refuse_foreign",
    "shaped", "sync",
]  # fmt: skip

#: What /run and /job take at most; larger inputs go through a bucket.
BODY_LIMIT_BYTES = 64 << 20


class Refused(BuoyError):
    """An answer that the request itself calls for: no such path, no such method."""

    def __init__(self, message: str, hint: str = "", *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


class Denied(Refused):
    """The caller did not prove who they are (401), or may not do this (403)."""

    def __init__(self, message: str, hint: str = "", *, status: int = 401) -> None:
        super().__init__(message, hint, status=status)


class Unavailable(Refused):
    """An exposed service that does not answer now (503), or ended while it should have (502)."""

    def __init__(self, message: str, hint: str = "", *, status: int = 503, retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint, status=status)
        self.retry_after_s = retry_after_s


class TooLarge(BuoyError):
    """A body above the limit."""


#: The first class that fits decides.
_STATUS: tuple[tuple[type[BuoyError], int], ...] = (
    (MissingError, 404),
    (ExistsError, 409),
    (TooLarge, 413),
    (ServiceError, 400),
    (UsageError, 400),
    (InputError, 400),
    (JobError, 500),
)


def status_of(error: BuoyError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, StoreError) and error.retry:
        return 503
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def compact(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON as Go writes it: no spaces, the order of the fields kept."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status, headers, media_type="application/json")


def error_response(request: Request, error: BuoyError) -> Response:
    """The error as JSON for whoever accepts that, as text (as upstream) for the rest."""
    if "application/json" in request.headers.get("accept", "") or request.url.path.startswith("/page/"):
        return shaped(error)
    status = status_of(error)
    return PlainTextResponse(str(error), status, _headers(error, status))


def shaped(error: BuoyError) -> Response:
    """The error in its one JSON form."""
    status = status_of(error)
    return JSONResponse({"error": error.record()}, status, _headers(error, status))


def _headers(error: BuoyError, status: int) -> dict[str, str]:
    headers = {"WWW-Authenticate": 'Basic realm="buoy"'} if status == 401 else {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return headers


def refuse_foreign(request: Request, *, must_tell: bool = False) -> None:
    """Refuse what another site's page has a browser send here, with a password or cookie that it remembers.

    Args:
        request: whatever came.
        must_tell: refuse also what does not say where it comes from, as programs do not.

    Raises:
        Denied: it changes something, and comes from elsewhere.
    """
    origin = request.headers.get("origin")
    if request.method in ("GET", "HEAD") or (origin is None and not must_tell):
        return
    if origin is None or urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Denied(f"a request from {origin or 'nowhere'} may not change anything here", status=403)


async def body(request: Request, limit_bytes: int = BODY_LIMIT_BYTES) -> bytes:
    """The whole body.

    Raises:
        TooLarge: before more than the limit is in memory.
    """
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(
                f"a body of more than {limit_bytes >> 20} MiB", "put it into a bucket of the service instead"
            )
        pieces.append(piece)
    return b"".join(pieces)


def json_body(data: bytes) -> Any:
    """The body as JSON, whatever its Content-Type says (some clients send none, or `text/json`).

    Raises:
        UsageError: it is no JSON.
    """
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is no JSON: {error}") from None


Sync = Callable[[Request, bytes], Response]


def sync(handler: Sync) -> Callable[[Request], Awaitable[Response]]:
    """A Starlette endpoint from a plain function of (request, body), run in a thread."""

    async def endpoint(request: Request) -> Response:
        data = await body(request)
        return await run_in_threadpool(handler, request, data)

    return endpoint


async def on_no_route(request: Request, error: Exception) -> Response:
    """A path that is not served, or not with this method."""
    assert isinstance(error, HTTPException)
    told = Refused(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code)
    response = error_response(request, told)
    response.headers.update(error.headers or {})
    return response


async def on_error(request: Request, error: Exception) -> Response:
    """Give every exception the one form; the server logs those that are not ours."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    return error_response(request, as_buoy_error(error, f"{request.method} {request.url.path}"))
