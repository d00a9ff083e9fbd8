"""What may happen to uploads: bad pictures of every kind, thousands of them, and a disk that is full."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from buoy.web.multipart import IN_MEMORY_BYTES
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "tmp").mkdir()
    options = ("--max-wait", "30", "--callers", "2")
    with serving(folder, model, options=options, TMPDIR=str(folder / "tmp")) as served:
        yield served


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def giant() -> bytes:
    """A PNG that says it has 3,600 megapixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8))
LARGE_NOISE = Image.fromarray(np.random.default_rng(2).integers(0, 255, (640, 640, 3), np.uint8))
WITH_THUMBNAIL = b"\xff\xe1" + struct.pack(">H", len(GOOD) + 2) + GOOD
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am a note\n", "starts like text"),
    "page": (b"<!DOCTYPE html><html></html>", "starts like text"),
    "another format": (encoded(NOISE, "GIF"), "not a known picture format"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "picture"),
    "video": (b"\0\0\0\x18ftypmp42" + b"\0" * 60, "picture"),
    "giant": (giant(), "3,600 megapixels"),
    "float": (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32 bits a pixel"),
    "only a head": (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "header"),
    "thumbnail": ((jpeg := encoded(NOISE, "JPEG"))[:2] + WITH_THUMBNAIL + jpeg[2:-500], "truncated"),
} | {
    f"{form} cut at {part:.0%}": (encoded(NOISE, form)[: int(len(encoded(NOISE, form)) * part)], "")
    for form in ("JPEG", "PNG", "WEBP", "TIFF")
    for part in (0.05, 0.6, 0.95)
}


@pytest.mark.parametrize("what", BAD)
def test_every_kind_of_bad_picture_is_told_and_costs_nothing_else(served: Served, what: str) -> None:
    data, says = BAD[what]
    with served.client() as http:
        answers = [
            http.post("/predict", content=data, headers=JPEG),
            http.post("/predict", files={"file": ("a.jpg", data)}),
            http.post("/v2/models/tiny/predict/", files={"files": ("a.jpg", data)}),
        ]
        for answer in answers:
            assert answer.status_code == 422, answer.text
            told = answer.json()["error"]
            assert told["class"] == "InputError"
            assert says in told["message"]
            assert told["hint"]
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200
    assert served.metric("buoy_worker_restarts_total") == 0


@pytest.mark.parametrize(
    "kind", ["text/html", "application/json", "video/mp4", "application/x-www-form-urlencoded", "x"]
)
def test_a_wrong_content_type_is_refused_before_the_body_is_read(served: Served, kind: str) -> None:
    with served.client() as http:
        answer = http.post("/predict", content=GOOD, headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert kind in answer.json()["error"]["message"]
    assert "image/jpeg" in answer.json()["error"]["hint"]


@pytest.mark.slow
def test_ten_thousand_uploads_leave_no_file_and_no_descriptor(served: Served) -> None:
    """As many as a slow leak needs to show."""
    # those that go to a temporary file, and are pictures or not
    large, bad = encoded(LARGE_NOISE, "PNG"), b"x" * IN_MEMORY_BYTES + GOOD
    assert len(large) > IN_MEMORY_BYTES
    folder = served.log_path.with_name("tmp")
    files = sorted(folder.iterdir())  # ONNX Runtime has left one

    def ask(http: httpx2.Client, number: int) -> int:
        data = GOOD if number % 100 else bad if number % 200 else large
        if number % 3 == 0:
            return http.post("/predict", files={"file": ("a.png", data)}).status_code
        return http.post("/predict", content=data, headers=JPEG).status_code

    with ThreadPoolExecutor(4) as pool, served.client() as http:
        list(pool.map(partial(ask, http), range(1, 40)))
        before = len(served.open_files())
        statuses = Counter(pool.map(partial(ask, http), range(10_000)))
        served.until(lambda: len(served.open_files()) <= before)
    assert statuses == {200: 9950, 422: 50}
    assert not [name for name in served.open_files() if "deleted" in name]
    assert sorted(folder.iterdir()) == files
    assert served.metric("buoy_uploads_open") == 0


def test_a_full_disk_is_told_to_those_whose_upload_needs_it_and_to_no_others(model: Path, tmp_path: Path) -> None:
    mounting = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*mounting, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces (unshare --map-root-user --mount)")
    disk = tmp_path / "disk"
    disk.mkdir()
    # The whole test runs inside the namespace, since only there the small disk is seen.
    script = f"""
        mount -t tmpfs -o size=3072k buoy "{disk}" || exit 99
        exec "{sys.executable}" -c "import support.full_disk as it; it.main()" "{model}" "{disk}" "{tmp_path}"
    """
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([*mounting, "/bin/sh", "-c", script], env=env, capture_output=True, text=True, timeout=120)
    if ended.returncode == 99:
        pytest.skip(f"this machine allows no tmpfs in a namespace: {ended.stderr}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
