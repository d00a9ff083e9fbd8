"""Alerts over HTTP, to real servers: those that take them, refuse them, hang, and come back."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from buoy.errors import UsageError
from buoy.serve.live.sinks import Limits, Sinks, webhook
from buoy.streams.spec import read_spec
from support.frames import failed_frame, frame
from support.receiver import closed_port, hanging, receiver

JPEG = b"\xff\xd8 a picture \xff\xd9"
HIT = [("rip", 0.91), ("boat", 0.99), ("rip", 0.7)]


def sinks(to: str, limits: Limits | None = None, **rule: Any) -> Sinks:
    rule = {"label": "rip", "score": 0.6, "k": 1, "n": 1, "cooldown_s": 0.0, **rule}
    spec = {"name": "reef", "source": "push:", "station": "OBSEA", "sinks": [{"kind": "webhook", "to": to, **rule}]}
    return Sinks(read_spec(spec), None, limits)


def until(true: Callable[[], object], what: str = "it") -> None:
    """Wait; a hang is caught, no speed is asked for."""
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends, f"waited a minute for {what}"
        time.sleep(0.005)


def test_an_alert_brings_the_rule_the_record_and_the_picture() -> None:
    with receiver() as to:
        open_ = sinks(f"{to.url}?key=1", k=2, n=3, cooldown_s=300)
        raised = [
            alert
            for at in range(6)
            for alert in open_.frame({}, frame(at, found=HIT, flags=["dark"] * (at == 1)), JPEG)
        ]
        assert open_.close(30)
    assert len(raised) == len(to.alerts) == 1
    alert = to.alerts[0]
    assert to.paths == ["/alert?key=1"]
    assert alert["schema"] == "buoy.alert/1"
    assert alert["rule"] == {"label": "rip", "score": 0.6, "k": 2, "n": 3, "cooldown_s": 300, "hits": 2}
    assert alert["found"] == [{"label": "rip", "score": 0.91}, {"label": "rip", "score": 0.7}]
    assert alert["model"]["maturity"] == "demo"
    assert alert["record"]["input"]["frame"]["number"] == 2  # frame 1 was dark
    assert (alert["stream"], alert["station"]) == ("reef", "OBSEA")
    assert base64.b64decode(alert["picture"]["base64"]) == JPEG
    assert "Aid only" in alert["note"]
    assert raised[0]["id"] == alert["id"]


def test_failed_frames_raise_nothing_and_a_gap_breaks_the_count() -> None:
    with receiver() as to:
        open_ = sinks(to.url, k=2, n=2)
        open_.frame({}, frame(0, found=HIT))
        open_.frame({}, failed_frame(1))
        open_.gap("2026-11-25T14:00:00.000Z", "2026-11-25T15:00:00.000Z", "silent")
        open_.frame({}, frame(2, found=HIT))
        assert open_.close(30)
    assert to.alerts == []
    assert open_.status()[0]["raised"] == 0


def test_a_server_that_fails_gets_the_same_alert_again() -> None:
    with receiver([503, 429, 500]) as to:
        open_ = sinks(to.url)
        open_.frame({}, frame(0, found=HIT), JPEG)
        until(lambda: open_.status()[0]["written"] == 1)
        assert open_.close(30)
    assert len(to.alerts) == 4
    assert len({alert["id"] for alert in to.alerts}) == 1
    assert open_.status()[0]["state"] == "ok"


@pytest.mark.parametrize("status", [400, 401, 404, 301, 308])
def test_a_refusal_for_good_is_told_and_not_repeated(status: int) -> None:
    with receiver() as other, receiver([status] * 9, location=other.url) as to:
        open_ = sinks(to.url)
        open_.frame({}, frame(0, found=HIT), JPEG)
        until(lambda: open_.status()[0]["dropped"]["failed"] == 1)
        assert open_.close(30)
    assert len(to.alerts) == 1
    assert other.alerts == []  # a redirect leads where nobody has agreed to send pictures
    shown = open_.status()[0]
    assert shown["state"] == "failing"
    assert str(status) in shown["error"]["message"]


def test_a_server_that_hangs_holds_up_nobody_and_what_waits_too_long_is_counted() -> None:
    with hanging(b"HTTP/1.1 200 OK\r\nX-Slow") as to:
        open_ = sinks(to, Limits(alert_s=0.2, give_up_s=0.0))
        longest_s, ends = 0.0, time.monotonic() + 1.0
        number = 0
        while time.monotonic() < ends:
            began_s = time.monotonic()
            open_.frame({}, frame(number, found=HIT), bytes(100_000))
            longest_s = max(longest_s, time.monotonic() - began_s)
            number += 1
            time.sleep(0.005)
        shown = open_.status()[0]
        assert shown["raised"] == number
        assert shown["dropped"]["late"] > 0
        assert number == 1 + shown["waiting"] + shown["dropped"]["late"] + shown["dropped"].get("full", 0)
        assert longest_s < 8.0  # of the time the server is waited for; what is asked here is that nobody waits for it
        until(lambda: open_.status()[0]["dropped"]["failed"], "a send that hangs to be given up")
        assert "does not answer in time" in open_.status()[0]["error"]["message"]
        open_.close(0)


def test_a_receiver_that_comes_back_gets_the_alert_and_both_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "buoy.serve.sinks")
    port = closed_port()
    open_ = sinks(f"http://user:secret@127.0.0.1:{port}/hidden")
    open_.frame({}, frame(0, found=HIT), JPEG)
    until(lambda: open_.status()[0]["state"] == "failing")
    with receiver(port=port) as to:
        until(lambda: open_.status()[0]["written"] == 1)
        assert open_.close(30)
    assert len(to.alerts) == 1
    assert to.headers[0]["Authorization"].startswith("Basic ")
    assert open_.status()[0]["state"] == "ok"
    assert [record.message for record in caplog.records] == ["a sink fails", "a sink works again"]
    told = str([vars(record) for record in caplog.records]) + str(open_.status())
    assert "secret" not in told
    assert "hidden" not in told


def test_an_alert_that_reached_nobody_does_not_silence_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_AGAIN_S", 0.0)
    with receiver([404]) as to:
        open_ = sinks(to.url, cooldown_s=3600)
        open_.frame({}, frame(0, found=HIT))
        until(lambda: open_.status()[0]["dropped"]["failed"] == 1)
        assert open_.frame({}, frame(1, found=HIT))
        assert not open_.frame({}, frame(2, found=HIT))
        assert open_.close(30)
    assert len(to.alerts) == 2


def test_closing_ends_in_time_though_nobody_is_there() -> None:
    open_ = sinks(f"http://127.0.0.1:{closed_port()}")
    open_.frame({}, frame(0, found=HIT))
    assert open_.close(1.0)
    assert open_.status()[0]["dropped"]["failed"] == 1


@pytest.mark.parametrize(
    ("to", "rule", "word"),
    [
        ("ftp://host/x", {}, "http"),
        ("http:///x", {}, "http"),
        ("http://host:99999/", {}, "http"),
        ("example.org/alert", {}, "http"),
        ("http://host/", {"k": 6, "n": 5}, "6 of 5"),
    ],
)
def test_what_can_never_work_is_refused_at_once(to: str, rule: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        sinks(to, **rule)


def test_what_is_no_record_is_counted_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    open_ = sinks(f"http://127.0.0.1:{closed_port()}")
    for record in (b"", b"{}", b'{"input": 1}', b"\xff", frame(0, "../../../../etc/cron.d/x", HIT)):
        assert open_.frame({}, record) == []
    open_.gap("yesterday", "2026-11-25T15:00:00.000Z", "silent")
    assert open_.unreadable == 6
    assert open_.close(30)
