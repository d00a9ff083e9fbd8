"""Who is let in, and how often."""

from __future__ import annotations

import base64

import pytest

from buoy.errors import UsageError
from buoy.serve.access import Access, safe_url
from buoy.serve.rate import Rate, Rates
from buoy.serve.refusals import Denied, TooOften
from support.loop import run

TOKEN = "correct-horse"


class Anybody:
    """Believes every token."""

    async def check(self, token: str) -> str:
        return token


def basic(name: str, password: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Basic " + base64.b64encode(f"{name}:{password}".encode())}


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {token}".encode("latin-1")}


def test_other_tokens_are_the_verifiers_business_and_basic_is_not() -> None:
    access = Access(TOKEN, ("fish",), Anybody())
    assert run(access.admit(bearer(TOKEN), "")) == "token"
    assert run(access.admit(bearer("eve"), "")) == "oidc eve"
    with pytest.raises(Denied):
        run(access.admit(basic("fish", "eve"), ""))
    with pytest.raises(Denied):
        run(Access("", (), Anybody()).admit(basic("", ""), ""))


def test_each_caller_has_an_allowance_of_its_own() -> None:
    now = [0.0]
    access = Access(TOKEN, ("fish",), Anybody(), Rates(Rate(2, 60), clock=lambda: now[0]))
    for headers in (bearer("ana"), bearer("bea"), bearer(TOKEN)):
        for _ in range(2):
            run(access.admit(headers, ""))
        with pytest.raises(TooOften) as told:
            run(access.admit(headers, ""))
        assert told.value.status == 429
        assert told.value.retry_after_s == pytest.approx(30)
    with pytest.raises(TooOften):  # the same token in other clothes
        run(access.admit(basic("fish", TOKEN), ""))
    now[0] = 29.9
    with pytest.raises(TooOften):
        run(access.admit(bearer("ana"), ""))
    now[0] = 30.1
    run(access.admit(bearer("ana"), ""))


def test_without_tokens_the_address_is_the_caller() -> None:
    access = Access("", (), None, Rates(Rate(1, 3600)))
    run(access.admit({}, "192.0.2.1"))
    run(access.admit({}, "192.0.2.2"))
    with pytest.raises(TooOften):
        run(access.admit({}, "192.0.2.1"))


def test_no_more_callers_are_remembered_than_there_is_room_for() -> None:
    rates = Rates(Rate(1, 3600), callers=100)
    for number in range(1000):
        rates.take(str(number))
    assert len(rates) == 100
    with pytest.raises(TooOften):
        rates.take("999")


def test_rates_are_read_or_refused() -> None:
    assert Rate.parse("20/s") == (20, 1)
    assert Rate.parse(" 100/min") == (100, 60)
    assert str(Rate.parse("1000/h")) == "1000/h"
    for text in ("", "0/s", "5", "1.5/s", "-1/s", "5/day", "x"):
        with pytest.raises(UsageError):
            Rate.parse(text)


def test_addresses_that_others_could_answer_for_are_refused() -> None:
    for url in ("https://aai.egi.eu/auth/realms/egi", "http://127.0.0.1:8080/x", "http://localhost/x"):
        assert safe_url("x", url) == url
    for url in ("http://aai.egi.eu/", "aai.egi.eu", "file:///etc/passwd", "https://", ""):
        with pytest.raises(UsageError, match="https"):
            safe_url("x", url)
