"""The first command of the README, as a newcomer runs it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.need import CHECKOUT

DEMO = CHECKOUT / "scripts" / "demo"


def test_the_demo_gives_the_right_results_from_any_directory_and_twice(tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run([str(DEMO), "--once"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "all well" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_wrong_results_make_the_demo_fail(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if name.split("/")[0] in ("functions", "fdl", "scripts", "requirements", "src", "pyproject.toml"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, copy / name)
    (copy / ".venv").symlink_to(CHECKOUT / ".venv")
    expected = copy / "functions" / "obsea-fish" / "sample" / "expected.json"
    expected.write_text(expected.read_text().replace('"fish"', '"whale"'))
    done = subprocess.run([str(copy / "scripts" / "demo"), "--once"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected whale" in done.stdout


def test_scripts_say_how_they_are_used(tmp_path: Path) -> None:
    done = subprocess.run([str(DEMO), "--what"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--once" in done.stderr


@pytest.mark.skipif(not shutil.which("dash"), reason="checks the scripts with dash, which is not on this machine")
def test_scripts_are_plain_sh() -> None:
    for script in (CHECKOUT / "scripts").iterdir():
        if script.is_file() and os.access(script, os.X_OK):
            assert script.read_text().startswith("#!/bin/sh\n"), script
            subprocess.run(["dash", "-n", str(script)], check=True)
