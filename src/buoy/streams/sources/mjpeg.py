"""MJPEG over HTTP: JPEGs one after the other in an answer that does not end."""

from __future__ import annotations

import ssl
import time
from collections.abc import Generator
from typing import Any

import httpx2

from buoy.errors import RefusedError, SourceError
from buoy.streams.frame import Picture
from buoy.streams.sources.address import Peer, credentials, mask, resolve
from buoy.streams.sources.halt import Halt
from buoy.streams.sources.parts import Parts, boundary_of
from buoy.version import VERSION

__all__ = ["MjpegSource"]

_REFUSED = {
    401: ("wants another user or password", "put both into the address, before the host"),
    403: ("forbids it to this user", "give the user the right to watch, or another user"),
    404: ("has nothing at this path", "look the path up in the camera's manual"),
    405: ("answers no GET at this path", "look the path up in the camera's manual"),
    410: ("has nothing at this path any more", "look the path up in the camera's manual"),
}


class MjpegSource:
    """`http://`, `https://`: Basic and Digest by what the server asks for, user and password from the address.

    Args:
        address: with or without user and password.
        silence_s: of no bytes, after which the connection is given up.
        verify_tls: whether the server's certificate must be trusted.
    """

    again = True
    connects = True

    def __init__(self, address: str, silence_s: float, verify_tls: bool = True) -> None:
        self.silence_s: float | None = silence_s
        self.peer: Peer | None = None
        self._address, self._user = credentials(address)
        self._shown = mask(address)
        self._verify: ssl.SSLContext | bool = ssl.create_default_context() if verify_tls else False

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
        """JPEGs as they become whole; `None` for each piece of the body that completes none."""
        self.peer = resolve(self._address)
        timeout_s = self.silence_s
        with httpx2.Client(
            timeout=timeout_s, verify=self._verify, follow_redirects=True, max_redirects=3, trust_env=False,
            headers={"User-Agent": f"buoy/{VERSION}", "Accept": "multipart/x-mixed-replace, image/jpeg"},
        ) as client:  # fmt: skip
            try:
                yield from self._read(client, halt)
            except httpx2.HTTPError as error:
                raise _told(error) from None

    def _read(self, client: httpx2.Client, halt: Halt) -> Generator[Picture | None]:
        answer = self._ask(client, halt)
        try:
            parts = Parts(self._boundary(answer))
            for piece in answer.iter_raw():
                now_s, arrived_s = time.time(), time.monotonic()
                if halt.is_set():
                    return
                found = parts.feed(piece)
                for jpeg in found:
                    yield Picture(jpeg, captured_s=now_s, arrived_s=arrived_s)
                if not found:
                    yield None
        finally:
            answer.close()
        if not halt.is_set():
            raise SourceError("the server ended the stream")

    def _ask(self, client: httpx2.Client, halt: Halt) -> httpx2.Response:
        """Connect; with user and password in the way that the server asks for."""

        def trace(event: str, info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                halt.shuts(info["return_value"].get_extra_info("socket"))

        def get(auth: httpx2.Auth | None) -> httpx2.Response:
            request = client.build_request("GET", self._address, extensions={"trace": trace})
            return client.send(request, auth=auth, stream=True)

        answer = get(None)
        if answer.status_code == 401 and self._user:
            asked = answer.headers.get("www-authenticate", "").lower()
            answer.close()
            answer = get(httpx2.DigestAuth(*self._user) if "digest" in asked else httpx2.BasicAuth(*self._user))
        return answer

    def _boundary(self, answer: httpx2.Response) -> bytes:
        status, kind = answer.status_code, answer.headers.get("content-type", "")
        if status in _REFUSED:
            what, hint = _REFUSED[status]
            raise RefusedError(f"the server {what} ({status})", hint)
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise RefusedError(f"the server refuses with {status} {answer.reason_phrase}", f"check {self._shown}")
        if status != 200:
            raise SourceError(f"the server answers {status} {answer.reason_phrase}")
        boundary = boundary_of(kind)
        if boundary is None:
            raise RefusedError(
                f"the server sends {kind[:80] or 'something without a type'}, not MJPEG",
                "give the address of the stream itself (multipart/x-mixed-replace), not of the page around it",
            )
        return boundary


def _told(error: httpx2.HTTPError) -> SourceError:
    """The reason in words, without an address."""
    if isinstance(error, httpx2.TimeoutException):
        connecting = isinstance(error, httpx2.ConnectTimeout)
        return SourceError("no connection within the time" if connecting else "the server is silent")
    if isinstance(error, httpx2.TooManyRedirects | httpx2.UnsupportedProtocol):
        return RefusedError(f"the server sends us elsewhere without end ({type(error).__name__})")
    if isinstance(error, httpx2.ConnectError):
        cause = str(error)
        if "CERTIFICATE" in cause.upper():
            return RefusedError(
                "the server's certificate is not trusted",
                "name its authority in SSL_CERT_FILE, or set verify_tls: false for this stream",
            )
        return SourceError(f"no connection: {mask(cause)}")
    return SourceError(f"the connection broke off ({type(error).__name__})")
