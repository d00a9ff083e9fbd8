"""What `pip install .` gives: built, unpacked, and run away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.need import CHECKOUT, program


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [program("uv"), "build", "--wheel", "--quiet", "--out-dir", str(out), str(CHECKOUT)]
    subprocess.run(command, check=True, env=os.environ | {"UV_SYSTEM_CERTS": "1"})
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"buoy", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    files = {"gateway/pages/index.html", "serve/live/pages/live.js", "web/pages/base.css", "serve/rpc/inference.pb"}
    assert {"buoy/py.typed", *(f"buoy/{file}" for file in files)} <= set(names)
    strays = [name for name in names if name.endswith((".pyc", ".onnx", ".db")) or "test" in name]
    assert strays == []


def test_it_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "BUOY_FUNCTIONS": str(CHECKOUT / "functions")}
    picture = CHECKOUT / "functions" / "obsea-fish" / "sample" / "scene_17_03.jpg"
    code = "import sys, buoy.cli; print(buoy.__file__, file=sys.stderr); buoy.cli.main()"
    command = [sys.executable, "-c", code, "predict", "obsea-fish", str(picture)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(str(tmp_path / "site"))
    assert "fish 0.8" in done.stdout
