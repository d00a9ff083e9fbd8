"""What the start of a function may load: cold start is the product here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from support.tiny import make_model, picture_with_squares

HEAVY = {
    "asyncio", "boto3", "botocore", "click", "email", "httptools", "httpx2", "jsonschema_rs", "multipart",
    "multiprocessing", "onnx", "psutil", "rich", "ssl", "starlette", "torch", "ultralytics", "uvicorn", "watchfiles",
    "buoy.gateway", "buoy.store", "buoy.fdl", "buoy.manifest_lint", "buoy.cli.group", "buoy.cli.talk",
}  # fmt: skip


def loaded_by(code: str, **env: str) -> set[str]:
    shown = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    ended = subprocess.run(
        [sys.executable, "-c", shown],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines())


def test_a_whole_run_of_the_function_loads_nothing_heavy(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), picture_with_squares((0, 0)))
    (tmp_path / "out").mkdir()
    loaded = loaded_by(
        # What `buoy.cli.main` does for `buoy function`, short of ending the process.
        "import buoy.cli\nfrom buoy.function import main\nassert main() == 0",
        INPUT_FILE_PATH=str(tmp_path / "a.jpg"),
        TMP_OUTPUT_DIR=str(tmp_path / "out"),
        BUOY_MODEL=str(make_model(tmp_path)),
    )
    assert "buoy.function" in loaded
    assert "onnxruntime" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("module", ["buoy.worker", "buoy.engine"])
def test_engine_and_worker_load_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_importing_buoy_loads_neither_numpy_nor_onnxruntime() -> None:
    assert loaded_by("import buoy") & {"numpy", "cv2", "onnxruntime", "PIL", "yaml", "msgspec"} == set()


def test_rendering_fdl_loads_neither_numpy_nor_opencv() -> None:
    assert loaded_by("import buoy.fdl") & {"numpy", "cv2", "onnxruntime", "PIL"} == set()


def test_sinks_load_nothing_heavy_until_they_have_something_to_send() -> None:
    loaded = loaded_by("import buoy.serve.live.sinks.bucket, buoy.serve.live.sinks.webhook")
    assert loaded & {"boto3", "cv2", "httpx2", "numpy", "onnxruntime", "pyarrow"} == set()
