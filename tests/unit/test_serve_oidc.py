"""Tokens of an OpenID provider, against a real one on loopback with real keys."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from buoy.serve.jwks import Keys
from buoy.serve.oidc import Tokens
from buoy.serve.rate import Rate
from buoy.serve.refusals import Denied, IssuerDown
from buoy.serve.settings import Oidc
from support.issuer import AUDIENCE, Issuer, issuer
from support.loop import run


@pytest.fixture(scope="module")
def provider() -> Iterator[Issuer]:
    with issuer() as provider:
        yield provider


def tokens(provider: Issuer, **more: Any) -> Tokens:
    return Tokens(Oidc(provider.url, AUDIENCE, **more))


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


@pytest.mark.parametrize("alg", ["RS256", "ES256", "Ed25519"])
def test_a_good_token_tells_who_comes(provider: Issuer, alg: str) -> None:
    assert run(tokens(provider).check(provider.token(alg))) == "ana"
    many = provider.token(alg, aud=["other", AUDIENCE], nbf=int(time.time()) + 5)
    assert run(tokens(provider).check(many)) == "ana"


def test_eddsa_is_known_by_its_old_name_too(provider: Issuer) -> None:
    key = provider.signers["Ed25519"]
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "old", "exp": int(time.time()) + 60}
    with pytest.warns(UserWarning, match="deprecated"):
        token = jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"])
    assert run(tokens(provider).check(token)) == "old"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -31}, {"exp": None}, {"exp": "soon"}, {"exp": float("nan")}, {"exp": True},
        {"nbf": 300}, {"iat": 300}, {"nbf": "x"},
        {"iss": "https://other.example"}, {"iss": None}, {"iss": ["a"]},
        {"aud": "other"}, {"aud": []}, {"aud": None}, {"aud": {"a": AUDIENCE}}, {"aud": AUDIENCE[:-1]},
        {"sub": None}, {"sub": ""}, {"sub": 7},
    ],
)  # fmt: skip
def test_a_token_that_says_something_else_is_refused(provider: Issuer, claims: dict[str, Any]) -> None:
    for name in {"exp", "nbf", "iat"} & claims.keys():  # seconds from now, which is not when tests are collected
        if type(claims[name]) is int:
            claims = {**claims, name: int(time.time()) + claims[name]}
    with pytest.raises(Denied, match="not accepted"):
        run(tokens(provider).check(provider.token(**claims)))


def test_required_claims_are_required(provider: Issuer) -> None:
    group = tokens(provider, require=(("groups", "marine"),))
    assert run(group.check(provider.token(groups=["land", "marine"]))) == "ana"
    assert run(group.check(provider.token(groups="marine"))) == "ana"
    for wrong in ({}, {"groups": []}, {"groups": "submarine"}, {"groups": {"marine": 1}}):
        with pytest.raises(Denied, match="groups"):
            run(group.check(provider.token(**wrong)))


def test_no_algorithm_and_shared_secrets_are_refused(provider: Issuer) -> None:
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "eve", "exp": int(time.time()) + 300}
    key = provider.signers["RS256"]
    public = OctKey.import_key(key.as_pem(private=False).strip() and base64.b64encode(key.as_pem(private=False)))
    forged = [unsigned({"alg": alg, "kid": key.kid}, claims) for alg in ("none", "None", "NONE", "")]
    forged += [jwt.encode({"alg": alg, "kid": key.kid}, claims, public, algorithms=[alg]) for alg in ("HS256", "HS512")]
    for token in forged:
        with pytest.raises(Denied, match=r"algorithm|not accepted"):
            run(tokens(provider).check(token))


def test_a_key_of_ones_own_is_no_key_of_the_provider(provider: Issuer) -> None:
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "eve", "exp": int(time.time()) + 300}
    own = RSAKey.generate_key(2048)
    headers: list[dict[str, Any]] = [
        {"kid": provider.signers["RS256"].kid}, {"kid": "unknown"}, {}, {"jwk": own.as_dict(private=False)},
        {"jku": f"{provider.url}/keys"},
    ]  # fmt: skip
    for header in headers:
        with pytest.raises(Denied):
            run(tokens(provider).check(jwt.encode({"alg": "RS256", **header}, claims, own, algorithms=["RS256"])))
    good = provider.token()
    head, body, signature = good.split(".")
    other = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "root"}).encode()).rstrip(b"=").decode()
    critical = unsigned({"alg": "RS256", "crit": ["x"], "x": 1}, claims) + signature
    for token in (critical, f"{head}.{other}.{signature}", f"{head}.{body}.", f"{head}.{body}", good[:-20],
                  "", ".", "a.b.c", "x" * 100_000, good.replace(".", ".."), "é.é.é"):  # fmt: skip
        with pytest.raises(Denied):
            run(tokens(provider).check(token))


def test_a_token_without_a_key_id_is_tried_with_the_only_key_of_its_kind(provider: Issuer) -> None:
    key = provider.signers["ES256"]
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "bea", "exp": int(time.time()) + 300}
    assert run(tokens(provider).check(jwt.encode({"alg": "ES256"}, claims, key, algorithms=["ES256"]))) == "bea"


def test_rotated_keys_are_fetched_and_old_ones_are_forgotten() -> None:
    async def story(provider: Issuer) -> None:
        checked = tokens(provider)
        old = provider.token()
        await asyncio.gather(*(checked.check(old) for _ in range(20)))
        assert provider.asked == 1  # for all of them together
        provider.rotate()
        assert await checked.check(provider.token()) == "ana"
        assert provider.asked == 2
        with pytest.raises(Denied, match="no key"):
            await checked.check(old)

    with issuer() as provider:
        run(story(provider))


def test_made_up_key_ids_do_not_make_us_flood_the_provider() -> None:
    async def story(provider: Issuer) -> None:
        checked = tokens(provider)
        for number in range(50):
            with pytest.raises(Denied):
                await checked.check(provider.token(header={"kid": f"made-up-{number}"}))
        assert provider.asked <= 4
        assert await checked.check(provider.token()) == "ana"

    with issuer() as provider:
        run(story(provider))


def test_a_provider_that_is_down_is_not_the_callers_fault_and_is_forgiven_for_a_day() -> None:
    async def story(provider: Issuer) -> None:
        now = [0.0]
        keys = Keys(provider.url, fetches=Rate(1, 1), clock=lambda: now[0])
        checked = Tokens(Oidc(provider.url, AUDIENCE), keys)
        provider.down = True
        for _ in range(2):  # the second is told without asking again
            with pytest.raises(IssuerDown) as told:
                await checked.check(provider.token())
            assert told.value.status == 503
            assert told.value.retry_after_s > 0
        provider.down, now[0] = False, 1.0
        assert await checked.check(provider.token()) == "ana"
        provider.down, now[0] = True, 3600.0
        assert await checked.check(provider.token()) == "ana"
        now[0] += 24 * 3600.0
        with pytest.raises(IssuerDown):
            await checked.check(provider.token())

    with issuer() as provider:
        run(story(provider))


def test_a_provider_that_says_nothing_holds_nobody_up() -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            keys = Keys(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
            with pytest.raises(IssuerDown, match="Time"):
                await keys.find("a", "RSA")

    run(story())


@pytest.mark.parametrize(
    "says",
    [{"issuer": "https://other.example"}, {"jwks_uri": "http://192.0.2.1/keys"}, {"jwks_uri": None}],
)
def test_a_discovery_document_that_points_elsewhere_is_not_believed(says: dict[str, Any]) -> None:
    with issuer() as provider:
        provider.says = says
        with pytest.raises(IssuerDown):
            run(tokens(provider).check(provider.token()))
        assert run(tokens(provider, jwks=f"{provider.url}/keys").check(provider.token())) == "ana"


def test_weak_and_private_and_foreign_keys_of_a_provider_are_passed_over() -> None:
    class Odd(Issuer):
        def document(self, path: str) -> dict[str, Any] | None:
            document = super().document(path)
            if document and "keys" in document:
                odd: list[Any] = [7, {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "o"}, {"kty": "AKP"}]
                odd += [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "!", "y": "?"}]
                document["keys"] = odd + document["keys"]
            return document

    provider = Odd()
    try:
        assert run(tokens(provider).check(provider.token("ES256"))) == "ana"
    finally:
        provider.close()
