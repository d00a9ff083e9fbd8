"""Who may ask: whoever has the service's token, or one of the OpenID provider that the service believes."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from buoy.errors import UsageError
from buoy.serve.rate import Rates
from buoy.serve.refusals import Denied

__all__ = ["OPEN", "Access", "Verifier", "is_loopback", "is_open", "read_token", "safe_url"]

#: Answered to everybody: what probes ask, the index, and the files of the page. They tell the names of the models
#: and nothing else.
OPEN = ("/", "/v2/health/live", "/v2/health/ready", "/session", "/ui/{file}")

_VARIABLES = ("BUOY_TOKEN", "OSCAR_SERVICE_TOKEN")


class Verifier(Protocol):
    """Knows tokens that are not the service's own; see `buoy.serve.oidc`."""

    async def check(self, token: str) -> str:
        """Who comes with that token; raises `Denied`, or a `Refusal` where that cannot be found out."""
        ...


class Access:
    """Decides on every request, whatever it comes over.

    Args:
        token: the service's own secret; empty for none.
        names: user names that go with it in Basic.
        verifier: of other tokens. Without it and without a token everybody is let in.
        rates: how often each caller may ask.
    """

    def __init__(
        self, token: str, names: tuple[str, ...], verifier: Verifier | None = None, rates: Rates | None = None
    ) -> None:
        self._bearer = token.encode()
        self._basic = [f"{name}:{token}".encode() for name in names]
        self._verifier = verifier
        self._rates = rates

    async def admit(self, headers: Mapping[bytes, bytes], address: str) -> str:
        """Let a caller in, and count the request.

        Args:
            headers: of the request, or metadata of a call, with names in lower case.
            address: where it comes from.

        Returns:
            Who it is, for limits and logs: never the secret itself.

        Raises:
            Denied: no token, or a wrong one.
            TooOften: the caller's allowance is used up.
            IssuerDown: whether the token is right cannot be found out now.
        """
        caller = await self._who(headers, address)
        if self._rates is not None:
            self._rates.take(caller)
        return caller

    async def _who(self, headers: Mapping[bytes, bytes], address: str) -> str:
        if not self._bearer and self._verifier is None:
            return address
        given = headers.get(b"authorization", b"").decode("latin-1")
        scheme, _, value = given.partition(" ")
        scheme, value = scheme.lower(), value.strip()
        if self._bearer:
            if scheme == "bearer" and hmac.compare_digest(value.encode(), self._bearer):
                return "token"
            if scheme == "basic" and self._knows(value):
                return "token"
        if scheme == "bearer" and value and self._verifier is not None:
            return f"oidc {await self._verifier.check(value)}"
        raise Denied(
            "a valid token is needed" if given else "no token was sent",
            "send `Authorization: Bearer TOKEN`, or Basic with the service's name and the token",
        )

    def _knows(self, value: str) -> bool:
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        # every name is compared, so that the time does not tell which exist
        return any([hmac.compare_digest(given, known) for known in self._basic])


def is_open(path: str) -> bool:
    """Whether a path is answered without a token."""
    return path in OPEN or path.startswith("/ui/")


def read_token(file: Path | None, environ: Mapping[str, str] = os.environ) -> str:
    """The token from a file, or else from the environment; empty if there is none.

    Raises:
        UsageError: the file cannot be read, or the token is empty or too short to be one.
    """
    if file is None:
        token, where = next(((environ[name].strip(), name) for name in _VARIABLES if environ.get(name)), ("", ""))
    else:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: the token cannot be read: {error}", "give a text file that holds it") from error
    if where and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(f"{where}: this is no token", "it has at least 8 printable ASCII characters and no space")
    return token


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach that address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def safe_url(what: str, url: str) -> str:
    """Refuse an address that others on the network could answer for.

    Raises:
        UsageError: neither https nor this machine.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("https", "http"):
        raise UsageError(f"{what} is {url[:100]!r}", "give a URL that begins with https://")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UsageError(f"{what} is not https: {url[:100]}", "give a URL that begins with https://")
    return url
