"""Uploads to a service whose temporary folder is a small file system; run in a mount namespace of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from support.serve import serving
from support.tiny import picture_with_squares, png

__all__ = ["main"]

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}


def main() -> None:
    """`main MODEL DISK FOLDER`: ends with a traceback if something is not as it should be."""
    model, disk, folder = map(Path, sys.argv[1:])
    large = GOOD + b"\0" * (6 << 20)
    with serving(folder, model, TMPDIR=str(disk)) as served, served.client() as http:
        for _ in range(3):
            for answer in (
                http.post("/predict", content=large, headers=JPEG),
                http.post("/predict", files={"file": ("a.png", large)}),
            ):
                assert answer.status_code == 500, answer.text
                told = answer.json()["error"]
                assert told["class"] == "StoreError", told
                assert "No space left on device" in told["message"], told
                assert "free some space" in told["hint"], told
            assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200  # stays in memory
        fits = GOOD + b"\0" * (2 << 20)
        assert http.post("/predict", content=fits, headers=JPEG).status_code in (200, 422)  # room was given back
        served.until(lambda: served.metric("buoy_uploads_open") == 0)
        assert not [name for name in served.open_files() if str(disk) in name], served.open_files()
        assert not [line for line in served.log if line["event"] == "the inference process ended"]
