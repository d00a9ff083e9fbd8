"""`buoy serve` with the operator's certificate: clients that check it, and what cannot be used."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from support.serve import serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))


def make_certificate(folder: Path, *more: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    folder.mkdir()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=buoy", "-addext", "subjectAltName=IP:127.0.0.1", *(more or ("-nodes",))],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("pair") / "own")


def refusal(model: Path, *options: object) -> str:
    """What it says when it does not start."""
    ended = subprocess.run(
        [Path(sys.executable).with_name("buoy"), "serve", model, "--port", "0", *map(str, options)],
        env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_client_that_checks_the_certificate_gets_its_answer(
    model: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pair
    other, _ = make_certificate(tmp_path / "other")
    with serving(tmp_path, model, options=("--tls-cert", str(certificate), "--tls-key", str(key))) as served:
        assert served.url.startswith("https://127.0.0.1:")
        with served.client(verify=ssl.create_default_context(cafile=certificate)) as http:
            answer = http.post("/predict", content=GOOD, headers={"Content-Type": "image/png"})
            assert (answer.status_code, len(answer.json()["detections"])) == (200, 2)
        for verify in (ssl.create_default_context(cafile=other), True):
            with served.client(verify=verify) as http, pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY"):
                http.get("/")
        with pytest.raises(httpx2.TransportError):
            httpx2.get(served.url.replace("https", "http"))


def test_one_without_the_other_is_refused_and_named(model: Path, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    assert "--tls-cert without --tls-key" in refusal(model, "--tls-cert", certificate)
    assert "--tls-key without --tls-cert" in refusal(model, "--tls-key", key)
    assert "--tls self with --tls-cert" in refusal(model, "--tls", "self", "--tls-cert", certificate, "--tls-key", key)


def test_what_is_no_certificate_or_not_its_key_is_refused_and_named(
    model: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pair
    text = tmp_path / "note.txt"
    text.write_text("hello\n")
    _, foreign = make_certificate(tmp_path / "foreign")
    for wrong in (text, key, tmp_path / "nothing"):
        said = refusal(model, "--tls-cert", wrong, "--tls-key", key)
        assert "--tls-cert" in said
        assert str(wrong) in said
    locked = make_certificate(tmp_path / "locked", "-passout", "pass:sesame")  # nobody is there to enter it
    for its, wrong in (*((certificate, each) for each in (text, certificate, foreign, tmp_path / "nothing")), locked):
        said = refusal(model, "--tls-cert", its, "--tls-key", wrong)
        assert "--tls-key" in said
        assert str(wrong) in said
