"""The commands and the Python in README.md and CONTRIBUTING.md are run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from buoy.model import sha256_of
from support.need import CHECKOUT
from support.tiny import make_network, picture_with_squares, png

BIN = Path(sys.executable).parent


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", (CHECKOUT / document).read_text(), re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the documents' commands read and write, copied, so that this checkout stays as it is."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("functions", "fdl", "README.md"):
        source = CHECKOUT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    return copy


def test_the_two_commands_of_the_readme_are_there() -> None:
    commands = [line.split()[0] for line in blocks("README.md", "sh")[0].splitlines()]
    assert commands == ["./scripts/demo", "./scripts/test"]
    assert all(os.access(CHECKOUT / command, os.X_OK) for command in commands)


def test_the_readmes_commands_run(checkout: Path) -> None:
    for block in blocks("README.md", "sh")[1:]:
        for command in block.splitlines():
            done = shell(command, checkout)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    results = {path.name for path in (checkout / "results").iterdir()}
    assert {"results.csv", "results.coco.json"} <= results
    assert any(name.endswith(".drawn.jpg") for name in results)


def test_the_readmes_python_runs(checkout: Path) -> None:
    (code,) = blocks("README.md", "python")
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fish ")


def test_a_model_is_added_as_the_contributing_page_says(checkout: Path) -> None:
    home = checkout / "functions" / "my-model"
    first, *others = blocks("CONTRIBUTING.md", "sh")
    assert shell(first, checkout).returncode == 0
    network = make_network(home / "my-model.onnx", size=640, classes=2)  # what its author would bring
    told = shell("buoy check my-model", checkout)
    assert told.returncode == 1
    assert sha256_of(network) in told.stdout, "check tells what to write down"
    manifest = home / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("0" * 64, sha256_of(network)))
    (home / "sample").mkdir(exist_ok=True)
    (home / "sample" / "squares.png").write_bytes(png(picture_with_squares((1, 2))))
    for block in others:
        for command in block.splitlines():
            done = shell(command, checkout)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (checkout / "fdl" / "my-model" / "async.yaml").is_file()
    assert (checkout / "look" / "squares.png.drawn.jpg").is_file()
