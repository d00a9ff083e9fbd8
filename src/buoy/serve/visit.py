"""Browsers as callers: they cannot set headers on pictures, events and sockets, and they act for any page they show.

The page is opened once with `?token=`, or asks for the token; from then on a cookie holds it, of the name that OSCAR's
forward authentication gives it, so that either may have set it. What a browser sends by itself (a cookie, a remembered
password, its access to this machine) proves nothing about the page that made it send: where such a request changes
something, its Origin has to be ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, unquote, urlsplit

from buoy.serve.access import is_loopback
from buoy.serve.refusals import Foreign

__all__ = ["Visit"]

_DAYS_S = 30 * 86_400


class Visit:
    """The cookie of one service, and what is refused with it.

    Args:
        name: of the service.
        base_path: below which the browser sees us; empty if we cannot know.
        secure: whether we are reached over TLS.
        trusting: whether everybody on this machine is let in.
        origins: of other sites that may ask.
    """

    def __init__(
        self, name: str, base_path: str, *, secure: bool, trusting: bool, origins: Collection[str] = ()
    ) -> None:
        self.cookie_name = f"oscar_service_{name.replace('-', '_')}_auth"
        self._base_path = base_path
        self._secure = secure
        self._trusting = trusting
        self._origins = origins

    def with_cookie(self, headers: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """The headers, with what the cookie stands for if there is no Authorization among them."""
        if b"authorization" in headers or b"cookie" not in headers:
            return headers
        try:
            cookies = SimpleCookie(headers[b"cookie"].decode("latin-1"))
        except CookieError:
            return headers
        found = cookies.get(self.cookie_name)
        return {**headers, b"authorization": b"Bearer " + unquote(found.value).encode()} if found else headers

    def cookie(self, token: str) -> str:
        """The value of a Set-Cookie header."""
        parts = [f"{self.cookie_name}={quote(token, safe='')}", f"Max-Age={_DAYS_S}", "HttpOnly", "SameSite=Strict"]
        # without a path, browsers take the folder of the page, which is right below any proxy
        parts += [f"Path={self._base_path}"] * bool(self._base_path) + ["Secure"] * self._secure
        return "; ".join(parts)

    def refuse_foreign(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what another site's page had a browser send.

        Raises:
            Foreign: it may have been sent without its user's knowledge.
        """
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or origin in self._origins or headers.get(b"authorization", b"")[:7].lower() == b"bearer ":
            return  # no browser, or a secret that browsers do not add by themselves
        at = urlsplit(origin)
        hosts = [headers[key] for key in (b"host", b"x-forwarded-host") if key in headers]
        ours = {host.decode("latin-1").lower() for host in hosts}
        # A name that an attacker points at this machine is an origin of its own, and "same".
        rebound = self._trusting and not is_loopback(at.hostname or "")
        if at.netloc.lower() not in ours or rebound:
            raise Foreign(
                f"a request from {origin[:80]} may not change anything here",
                "send it from the service's own page, or with `Authorization: Bearer TOKEN`",
            )
