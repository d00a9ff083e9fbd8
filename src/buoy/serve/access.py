"""Who may ask: whoever has the service's token, as Bearer or as the password of the service's name."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from buoy.errors import UsageError
from buoy.serve.refusals import Denied

__all__ = ["OPEN", "Access", "is_loopback", "read_token"]

#: Answered to everybody: what probes ask, and the index. They tell the names of the models and nothing else.
OPEN = ("/", "/v2/health/live", "/v2/health/ready")

_VARIABLES = ("BUOY_TOKEN", "OSCAR_SERVICE_TOKEN")


class Access:
    """Checks the Authorization header; compares in constant time.

    Args:
        token: the secret; empty for none, which lets everybody in.
        names: user names that go with it in Basic.
    """

    def __init__(self, token: str, names: tuple[str, ...]) -> None:
        self._bearer = token.encode()
        self._basic = [f"{name}:{token}".encode() for name in names]

    def check(self, header: str) -> None:
        """Let a caller in.

        Raises:
            Denied: no token, or a wrong one.
        """
        if not self._bearer:
            return
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(value.strip().encode(), self._bearer):
            return
        if scheme.lower() == "basic" and self._knows(value.strip()):
            return
        raise Denied(
            "a valid token is needed" if header else "no token was sent",
            "send `Authorization: Bearer TOKEN`, or Basic with the service's name and the token",
        )

    def _knows(self, value: str) -> bool:
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        # every name is compared, so that the time does not tell which exist
        return any([hmac.compare_digest(given, known) for known in self._basic])


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
