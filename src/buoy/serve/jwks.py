"""The public keys of an OpenID provider: fetched, kept, and fetched again when a token names one that is not known."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from buoy.errors import UsageError
from buoy.serve.access import safe_url
from buoy.serve.rate import Rate, Rates
from buoy.serve.refusals import IssuerDown, TooOften

__all__ = ["Key", "Keys"]

_log = logging.getLogger("buoy.serve")

Key = RSAKey | ECKey | OKPKey
_TYPES: dict[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

_TIMEOUT_S = 5.0
#: After this they are fetched again, so that a key that was taken back is not believed for ever.
_FRESH_S = 600.0
#: For this long a provider that does not answer is forgiven.
_STALE_S = 24 * 3600.0
_DOCUMENT_BYTES = 1 << 20
_LEAST_RSA_BITS = 2048
#: Anybody can send tokens with a made-up key id; this often may they make us ask the provider.
_FETCHES = Rate(4, 60)


class Keys:
    """The keys of one provider.

    Args:
        issuer: its URL, to which `/.well-known/openid-configuration` is added.
        url: of the keys, for a provider without that document.
        fetches: how often they may be fetched for a key that is not known.
        timeout_s: for each of the two documents.
        clock: for tests.
    """

    def __init__(
        self,
        issuer: str,
        url: str = "",
        *,
        fetches: Rate = _FETCHES,
        timeout_s: float = _TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._url = url
        self._timeout_s = timeout_s
        self._clock = clock
        self._fetches = Rates(fetches, callers=1, clock=clock)
        self._keys: list[Key] = []
        self._fetched_s = -float("inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, kind: str) -> Key | None:
        """The key that a token names, or the only one of that kind for a token that names none.

        Raises:
            IssuerDown: the keys are not known, and the provider does not give them.
        """
        age_s = self._clock() - self._fetched_s
        found = self._known(kid, kind) if age_s < _STALE_S else None
        if found is None:
            await self._again(waits=True)
            return self._known(kid, kind)
        if age_s > _FRESH_S:
            await self._again(waits=False)
        return found

    def _known(self, kid: str | None, kind: str) -> Key | None:
        fitting = [key for key in self._keys if key.key_type == kind and (kid is None or key.kid == kid)]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None

    async def _again(self, *, waits: bool) -> None:
        """Fetch the keys, all callers together; those that can do without do not wait."""
        if self._fetching is None:
            try:
                self._fetches.take("")
            except TooOften as error:
                if waits and not self._keys:
                    raise IssuerDown(self._issuer, "asked too often", error.retry_after_s) from None
                return  # as if it had given the same keys again
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._over)
        if waits:
            await asyncio.shield(self._fetching)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()):
            _log.error("no keys from the OpenID provider", extra={"fields": {"error": str(error)}})

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(2 * self._timeout_s), httpx2.AsyncClient(timeout=self._timeout_s) as http:
                keys = _imported(await _get(http, self._url or await self._discover(http)))
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError, UsageError) as error:
            raise IssuerDown(self._issuer, f"{type(error).__name__}: {error}"[:200]) from error
        if not keys:
            raise IssuerDown(self._issuer, "it has no key that can be used")
        self._keys, self._fetched_s = keys, self._clock()
        _log.info("keys of the OpenID provider", extra={"fields": {"keys": [key.kid for key in keys]}})

    async def _discover(self, http: httpx2.AsyncClient) -> str:
        document = await _get(http, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise ValueError(f"it calls itself {str(document.get('issuer'))[:100]!r}")
        return safe_url("jwks_uri", str(document.get("jwks_uri")))


async def _get(http: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object; redirects are not followed."""
    async with http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{url} answers {answer.status_code}")
        body = b""
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > _DOCUMENT_BYTES:
                raise ValueError(f"{url} is too long")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} is no JSON object")
    return document


def _imported(document: dict[str, Any]) -> list[Key]:
    """Public keys for signatures; what is not understood, or too weak, is passed over."""
    keys: list[Key] = []
    given = document.get("keys")
    for data in given if isinstance(given, list) else []:
        if not isinstance(data, dict) or data.get("use", "sig") != "sig" or data.get("kty") not in _TYPES:
            continue
        public = {name: value for name, value in data.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
        if data["kty"] == "RSA" and len(str(data.get("n"))) * 6 < _LEAST_RSA_BITS:
            continue
        try:
            keys.append(_TYPES[data["kty"]].import_key(public))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            _log.warning("a key of the OpenID provider is not understood", extra={"fields": {"error": str(error)}})
    return keys
