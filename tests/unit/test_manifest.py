import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from buoy.errors import ManifestError
from buoy.manifest import Manifest
from support.tiny import manifest_of

FAULTY = """\
name: Obsea_Fish
version: 0.1.0
taks: detect
maturity: demo
title: x
weights:
  file: fish.pt
  sha265: abc
input: {size: [512, 512], fitt: letterbox}
output:
  score: 1.5
classes: [fish, no, fish]
source: {title: t}
licence: Apache-2.0
licence: MIT
"""


def write(folder: Path, text: str) -> Path:
    (folder / "manifest.yaml").write_text(text)
    return folder


def test_manifest_is_read_with_its_defaults(tmp_path: Path) -> None:
    manifest = Manifest.load(write(tmp_path, yaml.safe_dump(manifest_of("tiny"))))
    assert manifest.labels == ["bright", "red"]
    assert manifest.taxa[1] == {"aphia_id": 125559}
    assert (manifest.input.fit, manifest.input.scale, manifest.output.max_detections) == ("letterbox", 255.0, 300)


def test_all_faults_are_told_at_once_with_line_and_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.load(write(tmp_path, FAULTY))
    lines = caught.value.message.splitlines()
    at = {line.split(":")[1]: line for line in lines}
    assert len(lines) == 11
    assert "does not match" in at["1"] or "task is missing" in at["1"]
    assert at["3"].endswith("unknown key taks; did you mean 'task'?")
    assert at["8"].endswith("unknown key weights.sha265; did you mean 'sha256'?")
    assert at["9"].endswith("unknown key input.fitt; did you mean 'fit'?")
    assert "maximum of 1" in at["11"]
    assert any("classes[1] is false: give a name (quoted)" in line for line in lines)
    assert any("the label 'fish' stands twice" in line for line in lines)
    assert at["15"].endswith("licence stands twice")


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "name: \x00"])
def test_text_that_is_no_manifest_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.yaml:1"):
        Manifest.load(write(tmp_path, text))


def test_absent_manifest_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="buoy new"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("name", ["a", "obsea-fish", "x2", "a" * 18])
def test_good_names_pass(tmp_path: Path, name: str) -> None:
    assert Manifest.load(write(tmp_path, yaml.safe_dump(manifest_of(name)))).name == name


@pytest.mark.parametrize("name", ["A", "1a", "a-", "a_b", "a" * 19, "a.b", ""])
def test_names_that_are_not_dns_or_too_long_for_a_service_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="name"):
        Manifest.load(write(tmp_path, yaml.safe_dump(manifest_of(name))))


def test_manifests_that_are_read_at_once_do_not_end_the_process(tmp_path: Path) -> None:
    """Each turn has types that have never been used, as a process has that has just begun."""
    write(tmp_path, yaml.safe_dump(manifest_of("tiny")))
    script = (
        "import importlib, sys; from concurrent.futures import ThreadPoolExecutor; from buoy import manifest\n"
        "sys.setswitchinterval(1e-6); pool = ThreadPoolExecutor(8)\n"
        "for _ in range(60):\n"
        "    importlib.reload(manifest)\n"
        "    list(pool.map(manifest.Manifest.load, [sys.argv[1]] * 8))\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 0
