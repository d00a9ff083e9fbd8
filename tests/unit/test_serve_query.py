"""What is asked of the service, read and checked."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from buoy.errors import UsageError
from buoy.serve.access import Access, is_loopback, read_token
from buoy.serve.query import fraction, negotiate
from buoy.serve.refusals import Denied, NotAcceptable
from support.loop import run


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("image/*", "jpeg"),
        ("image/png, image/*;q=0.5", "png"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "json"),
        ("application/json;q=0, */*", "csv"),
        ("application/json;q=0.2, image/png;q=0.4", "png"),
    ],
)
def test_the_preferred_type_is_answered(accept: str, form: str) -> None:
    assert negotiate(accept) == form


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "nonsense", "image/png;q=x"])
def test_types_that_cannot_be_had_are_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="nothing here"):
        negotiate(accept)


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-0.1", "1.01", True, None, [], 10**400])
def test_a_threshold_is_a_number_from_0_to_1(text: object) -> None:
    with pytest.raises(UsageError, match="the parameter score"):
        fraction("score", text)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "header", ["Bearer secret-1", "bearer  secret-1", basic("fish", "secret-1"), basic("b", "secret-1")]
)
def test_the_token_opens_as_bearer_and_as_password(header: str) -> None:
    run(Access("secret-1", ("fish", "b")).admit({b"authorization": header.encode()}, ""))


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer secret-2", "Bearer secret-1 x", "secret-1", "Basic secret-1", "Basic !!",
     basic("x", "secret-1"),
     basic("fish", ""), "Digest secret-1", "Bearer sécret"],
)  # fmt: skip
def test_anything_else_does_not(header: str) -> None:
    with pytest.raises(Denied):
        run(Access("secret-1", ("fish",)).admit({b"authorization": header.encode()} if header else {}, ""))


def test_the_file_goes_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-the-file\n")
    environ = {"BUOY_TOKEN": "from-buoy-token", "OSCAR_SERVICE_TOKEN": "from-oscar"}
    assert read_token(tmp_path / "token", environ) == "from-the-file"
    assert read_token(None, environ) == "from-buoy-token"
    assert read_token(None, {"OSCAR_SERVICE_TOKEN": "from-oscar"}) == "from-oscar"
    assert read_token(None, {}) == ""


@pytest.mark.parametrize("token", ["short", "with a space in it", "", "línea-larga"])
def test_what_is_no_token_is_refused(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(UsageError, match="no token"):
        read_token(tmp_path / "token", {})


def test_loopback_is_told_from_the_rest() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"))
