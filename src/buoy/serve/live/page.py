"""The page at `/`: its files, and how a browser gets in."""

from __future__ import annotations

import hashlib
import html
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from buoy import web
from buoy.serve import query
from buoy.serve.refusals import Denied, Unknown
from buoy.serve.service import Service
from buoy.serve.upload import Limits, pieces

__all__ = ["enter", "file", "page"]

_FOLDERS = (Path(__file__).with_name("pages"), Path(web.__file__).with_name("pages"))
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_TOKEN_BYTES = 16 << 10


class _File(NamedTuple):
    content: bytes
    media_type: str
    tag: str


async def page(service: Service, request: Request) -> Response:
    """The page, or where it asks for the token; a token in the address becomes a cookie."""
    if given := request.query_params.get("token"):
        return await _let_in(service, request, given)
    headers = service.visit.with_cookie(dict(request.scope["headers"]))
    try:
        await service.access.admit(headers, _address(request))
    except Denied:
        return _html(service, "enter.html")
    return _html(service, "index.html")


async def enter(service: Service, request: Request) -> Response:
    """Exchange the token for a cookie."""
    query.checked(request, ())
    body = b"".join([piece async for piece in pieces(request, Limits(_TOKEN_BYTES))])
    token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
    return await _let_in(service, request, token.strip())


async def file(service: Service, request: Request) -> Response:
    """A file of the page."""
    found = _files().get(request.path_params["file"])
    if found is None:
        raise Unknown(f"there is no file {request.path_params['file'][:60]!r} here", "open the page at /")
    headers = {**_HEADERS, "ETag": found.tag}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media_type)


async def _let_in(service: Service, request: Request, token: str) -> Response:
    try:
        await service.access.admit({b"authorization": b"Bearer " + token.encode()}, _address(request))
    except Denied:
        return _html(service, "enter.html", wrong=True)
    response = RedirectResponse(f"{service.settings.base_path}/" if service.settings.base_path else "./", 303)
    response.headers["Set-Cookie"] = service.visit.cookie(token)
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _html(service: Service, name: str, *, wrong: bool = False) -> Response:
    text = (_FOLDERS[0] / name).read_text(encoding="utf-8")
    if base := service.settings.base_path:
        # whether the address ends in a slash is not ours to choose
        text = text.replace("<!-- base -->", f'<base href="{html.escape(base)}/">')
    if wrong:
        text = text.replace("<!-- wrong -->", '<p class="wrong" role="alert">That is not the token.</p>')
    return HTMLResponse(text, 401 if wrong else 200, {**_HEADERS, "Cache-Control": "no-store"})


@cache
def _files() -> dict[str, _File]:
    found = {}
    for path in (path for folder in reversed(_FOLDERS) for path in folder.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path.name] = _File(content, f"{_TYPES[path.suffix]}; charset=utf-8", tag)
    return found


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
