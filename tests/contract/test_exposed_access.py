"""Who may use an exposed service, by OSCAR's modes, and what another site's page cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.exposed import Live, expose_model, expose_script
from support.gateway import Gateway, running
from support.loop import run
from support.tiny import make_model, picture_with_squares, png

FOREIGN = {"Origin": "https://evil.example"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("up") / "data") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def basic(gateway: Gateway) -> Live:
    return expose_script(gateway, "by-name")


@pytest.fixture(scope="module")
def forward(gateway: Gateway) -> Live:
    return expose_script(gateway, "by-cookie", auth_type="forward")


@pytest.fixture(scope="module")
def free(gateway: Gateway) -> Live:
    return expose_script(gateway, "for-all", set_auth=False)


def status(live: Live, path: str = "/x", method: str = "GET", **request: object) -> int:
    return httpx2.request(method, f"{live.url}{path}", timeout=60.0, **request).status_code  # type: ignore[arg-type]


def seen_authorization(answer: httpx2.Response) -> str:
    return dict(answer.json()["headers"]).get("authorization", "")


def test_name_and_token_open_the_door_and_nothing_else_does(basic: Live, free: Live) -> None:
    known = basic.gateway.credentials
    right = [(basic.name, basic.token), (known["username"], known["password"])]
    wrong = [(basic.name, "wrong"), ("other", basic.token), (basic.name, free.token), (basic.name, ""), ("", "")]
    assert [status(basic, auth=auth) for auth in right] == [200, 200]
    assert [status(basic, auth=auth) for auth in wrong] == [401] * len(wrong)
    for value in (f"Bearer {basic.token[:-1]}", f"Bearer {free.token}", "Bearer", "Basic !", "Basic", "\xff"):
        assert status(basic, headers={"Authorization": value.encode("latin-1")}) == 401
    assert status(basic) == status(basic, f"/x?token={basic.token}") == 401  # only the mode `forward` has that
    asked = httpx2.get(f"{basic.url}/x")
    assert asked.headers["www-authenticate"].startswith("Basic")
    assert asked.json()["error"]["class"] == "Denied"


def test_whatever_a_caller_showed_the_service_sees_its_own_token(basic: Live) -> None:
    known = basic.gateway.credentials
    for auth in ((basic.name, basic.token), (known["username"], known["password"])):
        answer = httpx2.get(f"{basic.url}/x", auth=auth, timeout=60.0)
        assert seen_authorization(answer) == f"Bearer {basic.token}"
        assert known["password"] not in answer.text


def test_a_model_takes_callers_that_the_gateway_let_in(gateway: Gateway, tmp_path: Path) -> None:
    live = expose_model(gateway, "tiny-live", make_model(tmp_path))
    picture = png(picture_with_squares((1, 2)))
    known = gateway.credentials
    for auth in ((live.name, live.token), (known["username"], known["password"])):
        answer = httpx2.post(f"{live.url}/predict", content=picture, headers={"Content-Type": "image/png"}, auth=auth)
        assert answer.status_code == 200, answer.text


def test_the_token_in_the_address_is_exchanged_for_a_cookie(forward: Live) -> None:
    with httpx2.Client(base_url=forward.url, timeout=60.0) as browser:
        assert browser.get("/x").status_code == 401
        assert browser.get("/x?token=wrong").status_code == 401
        first = browser.get(f"/x?a=1&token={forward.token}&b=2")
        assert (first.status_code, first.json()["query"]) == (200, "a=1&b=2")
        left = first.headers["set-cookie"]
        assert left.startswith("oscar_service_by_cookie_auth=")
        for part in ("HttpOnly", "SameSite=Lax", "Path=/system/services/by-cookie/exposed"):
            assert part in left.split("; ")
        later = browser.get("/x")
        assert later.status_code == 200
        assert "oscar_service" not in later.text  # the cookie is between the browser and us
        assert seen_authorization(later) == f"Bearer {forward.token}"
        assert browser.post("/x", headers=FOREIGN).status_code == 403
        assert browser.post("/x").status_code == 403  # a browser says where it comes from
        assert browser.post("/x", headers={"Origin": forward.gateway.url}).status_code == 200
    assert status(forward, auth=(forward.name, forward.token)) == 200


def test_a_proxy_in_front_can_ask_who_may_pass(forward: Live, gateway: Gateway) -> None:
    url = f"{gateway.url}/system/services/by-cookie/auth"
    prefix = "/system/services/by-cookie/exposed"
    assert httpx2.get(url).status_code == 401
    assert httpx2.get(f"{gateway.url}/system/services/none/auth").status_code == 401
    assert httpx2.get(url, headers={"X-Forwarded-Uri": f"{prefix}/?token=wrong"}).status_code == 401
    cookie = {"Cookie": f"oscar_service_by_cookie_auth={forward.token}"}
    asked = {"X-Forwarded-Uri": f"{prefix}/?token={forward.token}", "X-Forwarded-Proto": "https"}
    for given in (asked, cookie, {"Authorization": f"Bearer {forward.token}"}):
        answer = httpx2.get(url, headers=given)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["set-cookie"].startswith("oscar_service_by_cookie_auth=")
    assert httpx2.get(url, headers=asked).headers["set-cookie"].endswith("Secure")


def test_without_a_mode_only_this_machine_gets_in_and_the_service_has_its_own_rule(free: Live) -> None:
    with httpx2.Client(base_url=free.url, timeout=60.0) as caller:
        answer = caller.get("/x", headers={"Authorization": "Bearer of-the-service's-own"})
        assert seen_authorization(answer) == "Bearer of-the-service's-own"
        assert caller.post("/x").status_code == 200
        assert caller.post("/x", headers=FOREIGN).status_code == 403
        # a name that points here only for the browser: DNS rebinding
        assert caller.get("/x", headers={"Host": "evil.example"}).status_code == 401


def test_beyond_this_machine_every_service_asks(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--host", "0.0.0.0") as gateway:
        live = expose_script(gateway, "for-all", set_auth=False)
        assert status(live) == 401
        assert status(live, auth=(live.name, live.token)) == 200


def test_the_browser_that_has_the_page_open_may_look_at_the_service(basic: Live, gateway: Gateway) -> None:
    with httpx2.Client(base_url=gateway.url, timeout=60.0) as browser:
        assert browser.get("/").status_code == 200  # signed in, on loopback
        path = "/system/services/by-name/exposed/x"
        answer = browser.get(path)
        assert answer.status_code == 200
        assert "buoy_session" not in answer.text
        assert browser.post(path, headers=FOREIGN).status_code == 403


def test_a_websocket_from_another_sites_page_is_refused(free: Live, forward: Live) -> None:
    async def handshake(live: Live, **headers: str) -> int:
        url = f"{live.url.replace('http://', 'ws://')}/socket"
        try:
            async with connect(url, additional_headers=headers, proxy=None):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    cookie = f"oscar_service_by_cookie_auth={forward.token}"
    cases = [(free, {}, 101), (free, FOREIGN, 403), (forward, {}, 401), (forward, {"Cookie": cookie, **FOREIGN}, 403),
             (forward, {"Cookie": cookie, "Origin": forward.gateway.url}, 101)]  # fmt: skip
    for live, headers, want in cases:
        assert run(asyncio.wait_for(handshake(live, **headers), 60)) == want, headers
