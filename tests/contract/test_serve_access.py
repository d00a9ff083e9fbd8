"""`buoy serve` and who may use it, over real HTTP, with a real OpenID provider."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support.issuer import AUDIENCE, Issuer, issuer
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}
TOKEN = "correct-horse"
PAGE = "https://pages.example.org"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def provider() -> Iterator[Issuer]:
    with issuer() as provider:
        yield provider


@pytest.fixture(scope="module")
def served(model: Path, provider: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = ("--host", "0.0.0.0", "--oidc-issuer", provider.url, "--oidc-audience", AUDIENCE, "--rate", "20/h")
    with serving(
        tmp_path_factory.mktemp("serve"), model, options=(*options, "--cors", PAGE), BUOY_TOKEN=TOKEN
    ) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as http:
        yield http


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **JPEG}


def ask(http: httpx2.Client, token: str) -> httpx2.Response:
    return http.post("/predict", content=GOOD, headers=bearer(token))


def test_tokens_of_the_provider_and_the_services_own_are_let_in(http: httpx2.Client, provider: Issuer) -> None:
    for token in (TOKEN, provider.token("RS256"), provider.token("ES256"), provider.token("Ed25519")):
        assert ask(http, token).status_code == 200
    for token in (
        "wrong",
        provider.token(exp=int(time.time()) - 60),
        provider.token(aud="other"),
        provider.token()[:-9],
    ):
        refused = ask(http, token)
        assert refused.status_code == 401
        assert refused.json()["error"]["class"] == "Denied"
        assert AUDIENCE in refused.json()["error"]["hint"]


def test_rotated_keys_are_found_while_it_runs(http: httpx2.Client, provider: Issuer) -> None:
    assert ask(http, provider.token(sub="before")).status_code == 200
    provider.rotate()
    assert ask(http, provider.token(sub="after")).status_code == 200


def test_a_caller_over_its_rate_is_told_when_to_come_back_and_others_are_not(
    http: httpx2.Client, provider: Issuer
) -> None:
    statuses = [http.get("/v2/models/tiny", headers=bearer(provider.token(sub="greedy"))) for _ in range(22)]
    assert [answer.status_code for answer in statuses] == [200] * 20 + [429] * 2
    assert 1 <= int(statuses[-1].headers["retry-after"]) <= 180
    assert "20/h" in statuses[-1].text
    assert ask(http, provider.token(sub="greedy")).status_code == 429
    assert ask(http, provider.token(sub="modest")).status_code == 200
    assert http.get("/v2/health/ready", headers=bearer(provider.token(sub="greedy"))).status_code == 200


def test_pages_of_the_named_origin_may_ask_and_others_may_not(http: httpx2.Client) -> None:
    def preflight(origin: str) -> httpx2.Response:
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        return http.options("/predict", headers={"Origin": origin, **wanted})

    allowed = preflight(PAGE)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in allowed.headers
    answer = http.post("/predict", content=GOOD, headers={"Origin": PAGE, **bearer(TOKEN)})
    refused = http.post("/predict", content=GOOD, headers={"Origin": PAGE, **JPEG})  # so that the page can show why
    assert (answer.status_code, refused.status_code) == (200, 401)
    for seen in (answer, refused):
        assert seen.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in seen.headers["access-control-expose-headers"].lower()
    for origin in ("https://evil.example", "null", f"{PAGE}.evil.example", "http://pages.example.org"):
        assert preflight(origin).status_code == 400
        assert "access-control-allow-origin" not in preflight(origin).headers
        other = http.post("/predict", content=GOOD, headers={"Origin": origin, **bearer(TOKEN)})
        assert "access-control-allow-origin" not in other.headers


def test_without_the_option_no_page_may_ask(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, model) as served, served.client() as http:
        wanted = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        for answer in (http.options("/predict", headers=wanted), http.get("/v2", headers={"Origin": PAGE})):
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_provider_that_is_down_gives_503_and_the_services_own_token_still_works(model: Path, tmp_path: Path) -> None:
    with issuer() as provider:
        provider.down = True
        options = ("--oidc-issuer", provider.url, "--oidc-audience", AUDIENCE)
        with serving(tmp_path, model, options=options, BUOY_TOKEN=TOKEN) as served, served.client() as http:
            answer = ask(http, provider.token())
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["class"] == "IssuerDown"
            assert ask(http, TOKEN).status_code == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "without a token is refused"),
        (("--oidc-issuer", "https://x.example"), "belong together"),
        (("--oidc-audience", "x"), "belong together"),
        (("--oidc-issuer", "http://x.example", "--oidc-audience", "x"), "not https"),
        (("--rate", "5"), "the rate is '5'"),
        (("--cors", "*"), "--cors is '*'"),
        (("--cors", "https://a.example/path"), "--cors is"),
        (("--oidc-issuer", "https://x.example", "--oidc-audience", "x", "--oidc-require", "a"), "CLAIM=VALUE"),
    ],
)
def test_it_does_not_start_with_what_is_not_safe_or_cannot_work(
    model: Path, options: tuple[str, ...], says: str
) -> None:
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("buoy")), "serve", str(model), "--port", "0", *options],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert says in ended.stderr
