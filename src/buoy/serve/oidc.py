"""Callers who come with a token of an OpenID provider: a JWT, signed by one of its keys, meant for us, and in time.

Sources: OpenID Connect Core 1.0 and Discovery 1.0, RFC 7519 (JWT), RFC 8725 (what goes wrong with them).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning

from buoy.serve.jwks import Keys
from buoy.serve.refusals import Denied
from buoy.serve.settings import Oidc

__all__ = ["Tokens"]

#: Signatures with a public key only, so that a public key can never be taken for a shared secret; and the kind of each.
_KIND = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}
_LEEWAY_S = 30
_MOST_BYTES = 16 << 10


def _registry() -> jws.JWSRegistry:
    registry = jws.JWSRegistry(algorithms=list(_KIND), strict_check_header=False)
    registry.max_header_length = 4096  # some providers put certificates there
    return registry


class Tokens:
    """Checks tokens against one provider.

    Args:
        wanted: the provider, and what its tokens must say.
        keys: of the provider; by default fetched from it.
    """

    def __init__(self, wanted: Oidc, keys: Keys | None = None) -> None:
        self._wanted = wanted
        self._keys = keys or Keys(wanted.issuer, wanted.jwks)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": wanted.issuer},
            aud={"essential": True, "value": wanted.audience},
            sub={"essential": True},
            exp={"essential": True},
        )

    async def check(self, token: str) -> str:
        """Let a caller in.

        Returns:
            The subject, who is the same person or program in every token of this provider.

        Raises:
            Denied: the token is not one of this provider's for us, or no longer.
            IssuerDown: that cannot be found out now.
        """
        try:
            if len(token) > _MOST_BYTES:
                raise ValueError("it is too long")
            header = jws.extract_compact(token.encode(), registry=_registry()).headers()
            key = await self._keys.find(_kid(header), _KIND.get(str(header.get("alg")), ""))
            if key is None:
                raise ValueError("it is signed with no key of the provider")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has a new name, Ed25519
                claims = jwt.decode(token, key, registry=_registry(), algorithms=list(_KIND)).claims
            self._claims.validate(claims)
            for name, value in self._wanted.require:
                given = claims.get(name)
                if value not in (given if isinstance(given, list) else [given]):
                    raise ValueError(f"its claim {name} is not {value}")
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise Denied(
                f"the token is not accepted: {str(error)[:200]}",
                f"send a token of {self._wanted.issuer} for the audience {self._wanted.audience} that has not expired",
            ) from None
        return str(claims["sub"])


def _kid(header: Mapping[str, object]) -> str | None:
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("its key id is no text")
    if header.get("alg") not in _KIND:
        raise ValueError(f"its algorithm is none of {', '.join(_KIND)}")
    return kid
