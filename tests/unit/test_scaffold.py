from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from buoy import golden, scaffold
from buoy.cli.group import run
from buoy.errors import UsageError
from buoy.image import decode
from buoy.manifest import Manifest, json_schema
from buoy.manifest_lint import faults
from support.tiny import make_network


def test_a_new_folder_passes_check_once_its_messages_are_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "functions" / "my-model"
    assert run(["new", "my-model", "--task", "detect", "--into", str(folder.parent)]) == 0
    assert str(folder) in capsys.readouterr().out

    assert run(["check", str(folder)]) == 1
    assert "my-model.onnx: cannot be read" in capsys.readouterr().out
    make_network(folder / "my-model.onnx", size=640)

    assert run(["check", str(folder)]) == 1
    said = capsys.readouterr().out
    told = re.search(r"set weights\.sha256 to ([0-9a-f]{64})", said)
    assert told, said
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("0" * 64, told[1]))

    assert run(["check", str(folder)]) == 0
    assert "buoy check --update" in capsys.readouterr().err
    assert run(["check", str(folder), "--update"]) == 0
    assert run(["check", str(folder)]) == 0


def test_a_new_manifest_is_valid_and_names_its_schema(tmp_path: Path) -> None:
    folder = scaffold.write_new("my-model", "detect", tmp_path)
    text = (folder / "manifest.yaml").read_text()
    assert faults(text, json_schema()) == []
    assert Manifest.load(folder).name == "my-model"
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=../../schemas/manifest.schema.json"
    checkout = Path(__file__).resolve().parents[2]
    schema = (checkout / "functions" / "my-model" / first.partition("=")[2]).resolve()
    assert json.loads(schema.read_text())["title"]


def test_new_pictures_are_drawn_and_readable(tmp_path: Path) -> None:
    written = scaffold.draw_samples(tmp_path)
    assert written == golden.pictures(tmp_path)
    assert [decode(path.read_bytes()).shape for path in written] == [(480, 640, 3), (720, 1280, 3), (511, 333, 3)]


@pytest.mark.parametrize(
    "label", ["no", "1.5", "Boops boops", "a: b", "- x", "it's", 'say "x"', "#7", "Diplodus 'sp.'", "~", "ñandú", "[x]"]
)
def test_any_label_and_title_survives_the_manifest(label: str) -> None:
    draft = scaffold.Draft(
        name="x", task="detect", title=label, maturity="demo", weights_file="x.onnx", weights_sha256="0" * 64,
        size=(64, 32), labels=[label, "other"], source_title=label, licence="Apache-2.0",
    )  # fmt: skip
    text = scaffold.manifest_text(draft)
    assert faults(text, json_schema()) == []
    data = yaml.safe_load(text)
    assert data["classes"] == [label, "other"]
    assert data["title"] == data["source"]["title"] == label
    assert data["input"]["size"] == [64, 32]


@pytest.mark.parametrize("name", ["Fish", "my_fish", "-fish", "fish-", "a" * 19, "", "../fish", "9fish"])
def test_names_that_cannot_be_services_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a model"):
        scaffold.write_new(name, "detect", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the task segment is not there yet; this version has detect"):
        scaffold.write_new("my-model", "segment", tmp_path / "functions")
    assert not (tmp_path / "functions").exists()


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        scaffold.write_new("my-model", "detect", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["my-model", "notes.txt"]


def test_a_folder_goes_where_models_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUOY_FUNCTIONS", f"{tmp_path / 'here'}:{tmp_path / 'there'}")
    assert run(["new", "my-model"]) == 0
    assert (tmp_path / "here" / "my-model" / "manifest.yaml").is_file()
    monkeypatch.delenv("BUOY_FUNCTIONS")
    monkeypatch.chdir(tmp_path)
    assert run(["new", "my-model"]) == 0
    assert (tmp_path / "functions" / "my-model" / "manifest.yaml").is_file()


def test_a_folder_that_fails_in_the_making_leaves_what_was_there(tmp_path: Path) -> None:
    kept = scaffold.write_new("my-model", "detect", tmp_path)
    before = (kept / "manifest.yaml").read_bytes()

    def fail() -> None:
        with scaffold.placed(tmp_path, "my-model", force=True) as home:
            (home / "manifest.yaml").write_text("half of it")
            raise UsageError("stop")

    with pytest.raises(UsageError, match="stop"):
        fail()
    assert (kept / "manifest.yaml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["my-model"]
