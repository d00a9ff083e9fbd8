"""A disk that is really full: a small file system of our own, in a mount namespace of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import pytest

from support.tiny import make_model, picture_with_squares

SIZE_KIB = 64


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """The start of a command that may mount; not every kernel and container lets us."""
    command = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces (unshare --map-root-user --mount)")
    return command


def test_a_full_disk_is_told_with_its_remedy_and_what_was_written_stays_whole(
    namespace: list[str], tmp_path: Path
) -> None:
    picture = cv2.imencode(".png", picture_with_squares((0, 0)))[1].tobytes()
    with zipfile.ZipFile(tmp_path / "batch.zip", "w") as batch:
        for number in range(100):
            batch.writestr(f"{number:03}.png", picture)
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    run = "import sys; from buoy.cli import main; sys.argv[1:] = ['function']; main()"
    # The file system ends with the namespace, so what was written is copied out of it.
    script = f"""
        mount -t tmpfs -o size={SIZE_KIB}k buoy "$TMP_OUTPUT_DIR" || exit 99
        "{sys.executable}" -c "{run}"
        code=$?
        cp -r "$TMP_OUTPUT_DIR" "{kept}"
        exit $code
    """
    env = {
        "PATH": os.environ["PATH"],
        "INPUT_FILE_PATH": str(tmp_path / "batch.zip"),
        "TMP_OUTPUT_DIR": str(disk),
        "BUOY_MODEL": str(make_model(tmp_path)),
    }
    ended = subprocess.run([*namespace, "/bin/sh", "-c", script], env=env, capture_output=True, text=True, timeout=120)
    if ended.returncode == 99:
        pytest.skip(f"this machine allows no tmpfs in a namespace: {ended.stderr}")
    assert ended.returncode == 1, ended.stderr
    assert "No space left on device" in ended.stderr
    assert "free some space" in ended.stderr
    assert "Traceback" not in ended.stderr
    written = [path for path in kept.rglob("*") if path.is_file()]
    assert 5 < len(written) < 100
    assert all(path.name.endswith(".png.json") and json.loads(path.read_bytes())["detections"] for path in written)
