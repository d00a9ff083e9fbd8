"""Credentials, cookies, signatures."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from buoy.errors import UsageError
from buoy.gateway.auth import Credentials, bearer


def header(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_credentials_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "credentials.yaml"
    made = Credentials.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Credentials.load(path) == made
    assert len({made.password, made.secret_key, made.signing_key, made.event_token}) == 4


@pytest.mark.parametrize("text", ["", "[]", "username: x", "{", "a: b"])
def test_a_file_that_holds_no_credentials_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match="these are not credentials"):
        Credentials.load(tmp_path / "c.yaml")


def test_the_administrator_is_known_by_name_and_password(tmp_path: Path) -> None:
    known = Credentials.load(tmp_path / "c.yaml")
    assert known.admin(header(f"{known.username}:{known.password}"))
    for wrong in (
        "",
        "Basic",
        "Basic !!!",
        header(known.username),
        header(f"{known.username}:x"),
        "Bearer x",
        "Basic ü",
    ):
        assert not known.admin(wrong)


def test_a_cookie_is_good_until_it_expires_and_cannot_be_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Credentials.load(tmp_path / "c.yaml")
    cookie = known.session()
    assert known.in_session(cookie)
    expires, _, signature = cookie.partition(".")
    for wrong in ("", ".", cookie[:-1], f"{int(expires) + 1}.{signature}", f"x.{known.sign('session', 'x')}", "ü.ü"):
        assert not known.in_session(wrong)
    monkeypatch.setattr("time.time", lambda: float(expires) + 1)
    assert not known.in_session(cookie)


def test_signatures_keep_their_parts_apart(tmp_path: Path) -> None:
    known = Credentials.load(tmp_path / "c.yaml")
    assert (
        len({known.sign("a", "b"), known.sign("a\nb"), known.sign("a\\nb"), known.sign("ab"), known.sign("b", "a")})
        == 5
    )


def test_a_bearer_token_is_read_whatever_the_case_of_its_scheme() -> None:
    assert bearer("bearer  abc ") == bearer("Bearer abc") == "abc"
    assert bearer("Basic abc") == bearer("") == ""
