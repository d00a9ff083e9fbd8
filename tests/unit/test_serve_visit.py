"""What a browser sends by itself: the cookie, and where it comes from."""

from __future__ import annotations

import pytest

from buoy.serve.refusals import Foreign
from buoy.serve.visit import Visit

BASE = "/system/services/fish-live/exposed"


def visit(*, trusting: bool = False) -> Visit:
    return Visit("fish-live", BASE, secure=True, trusting=trusting)


def headers(**given: str) -> dict[bytes, bytes]:
    return {key.replace("_", "-").encode(): value.encode() for key, value in given.items()}


def test_the_cookie_is_kept_from_scripts_other_sites_and_other_paths() -> None:
    name, *rest = visit().cookie("a b;c").split("; ")
    assert name == "oscar_service_fish_live_auth=a%20b%3Bc"
    assert {"HttpOnly", "SameSite=Strict", f"Path={BASE}", "Secure"} <= set(rest)


def test_the_cookie_stands_for_the_token_where_no_header_does() -> None:
    cookie = "x=1; oscar_service_fish_live_auth=a%20b%3Bc"
    assert visit().with_cookie(headers(cookie=cookie))[b"authorization"] == b"Bearer a b;c"
    given = headers(cookie=cookie, authorization="Basic eA==")
    assert visit().with_cookie(given)[b"authorization"] == b"Basic eA=="
    for other in ("oscar_service_other_auth=a", "=;=,", "oscar_service_fish_live_auth"):
        assert b"authorization" not in visit().with_cookie(headers(cookie=other))


@pytest.mark.parametrize(
    "given",
    [
        {"host": "sea.example"},
        {"host": "sea.example", "origin": "https://sea.example"},
        {"host": "127.0.0.1:8000", "x_forwarded_host": "sea.example", "origin": "https://sea.example"},
        {"host": "sea.example", "origin": "https://evil.example", "authorization": "Bearer x"},
    ],
)
def test_the_page_itself_and_programs_may_change_things(given: dict[str, str]) -> None:
    visit().refuse_foreign(headers(**given))


@pytest.mark.parametrize(
    "given",
    [
        {"host": "sea.example", "origin": "https://evil.example"},
        {"host": "sea.example", "origin": "null"},
        {"host": "sea.example", "origin": "https://sea.example:444"},
        {"host": "sea.example", "origin": "https://evil.example", "authorization": "Basic eA=="},
        {"origin": "https://sea.example"},
    ],
)
def test_another_sites_page_may_not(given: dict[str, str]) -> None:
    with pytest.raises(Foreign):
        visit().refuse_foreign(headers(**given))


def test_a_name_that_points_at_this_machine_is_not_this_machine() -> None:
    given = headers(host="evil.example:8000", origin="http://evil.example:8000")
    with pytest.raises(Foreign):
        visit(trusting=True).refuse_foreign(given)
    visit(trusting=True).refuse_foreign(headers(host="127.0.0.1:8000", origin="http://127.0.0.1:8000"))
