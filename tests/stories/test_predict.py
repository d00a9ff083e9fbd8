"""`buoy predict`, `check` and `models` as a scientist uses them."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema_rs
import pytest

from support.need import CHECKOUT
from support.tiny import make_model, picture_with_squares, png

BUOY = Path(sys.executable).parent / "buoy"


def buoy(*arguments: object, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BUOY_")}
    return subprocess.run(
        [str(BUOY), *map(str, arguments)], cwd=folder, env=clean | env, capture_output=True, text=True
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with functions/tiny, and pictures/ with two good files and two bad ones."""
    make_model(tmp_path / "functions")
    pictures = tmp_path / "pictures"
    (pictures / "sub").mkdir(parents=True)
    (pictures / "one.png").write_bytes(png(picture_with_squares((0, 1))))
    (pictures / "sub" / "one.png").write_bytes(png(picture_with_squares((2, 2), (3, 3))))
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "note.jpg").write_text("not a picture")
    return tmp_path


def test_a_folder_with_bad_files_gives_all_records_and_exit_code_3(place: Path) -> None:
    done = buoy("predict", "tiny", "pictures", "-o", "out", folder=place)
    assert done.returncode == 3
    written = {str(path.relative_to(place / "out")) for path in (place / "out").rglob("*") if path.is_file()}
    assert written == {
        "one.png.json", "sub/one.png.json", "empty.png.error.json", "note.jpg.error.json", "results.csv",
    }  # fmt: skip
    rows = list(csv.DictReader((place / "out" / "results.csv").read_text().splitlines()))
    assert sorted((row["name"], row["status"]) for row in rows) == [
        ("empty.png", "failed"), ("note.jpg", "failed"), ("one.png", "found"),
        ("sub/one.png", "found"), ("sub/one.png", "found"),
    ]  # fmt: skip
    assert "2 done, 2 failed" in done.stderr
    assert "demo weights" in done.stderr
    assert "empty.png: failed: the file is empty (0 bytes); upload it again" in done.stdout


def test_json_gives_a_record_a_line_by_the_schema(place: Path) -> None:
    done = buoy("predict", "tiny", "pictures", "--json", folder=place)
    schema = json.loads((CHECKOUT / "schemas" / "result.schema.json").read_text())
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 4
    for record in records:
        jsonschema_rs.validate(schema, record)


def test_files_of_one_name_from_two_folders_do_not_overwrite_each_other(place: Path) -> None:
    done = buoy("predict", "tiny", "pictures/one.png", "pictures/sub/one.png", "-o", "out", folder=place)
    assert done.returncode == 0
    assert (place / "out" / "one.png.json").is_file()
    assert (place / "out" / "sub" / "one.png.json").is_file()


def test_a_zip_is_answered_entry_by_entry(place: Path) -> None:
    with zipfile.ZipFile(place / "batch.zip", "w") as archive:
        archive.writestr("a.png", png(picture_with_squares((0, 0))))
        archive.writestr("deep/b.png", b"")
    done = buoy("predict", "tiny", "batch.zip", "-o", "out", folder=place)
    assert done.returncode == 3
    assert (place / "out" / "batch.zip" / "a.png.json").is_file()
    assert (place / "out" / "batch.zip" / "deep" / "b.png.error.json").is_file()


def test_an_unknown_model_is_one_line_that_lists_the_known_ones(place: Path) -> None:
    done = buoy("predict", "whale", "pictures", folder=place)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no model 'whale'" in done.stderr
    assert "models here: tiny" in done.stderr
    as_json = buoy("predict", "whale", "pictures", "--json", folder=place)
    assert json.loads(as_json.stdout)["error"]["class"] == "UsageError"


@pytest.mark.parametrize(
    "arguments", [["predict"], ["predict", "tiny", "x.png", "--score", "2"], ["fly"], ["up", "--no"]]
)
def test_wrong_usage_is_exit_code_2(place: Path, arguments: list[str]) -> None:
    done = buoy(*arguments, folder=place)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_code_1(place: Path) -> None:
    (place / "taken").write_text("")
    done = buoy("predict", "tiny", "pictures/one.png", "-o", "taken", folder=place)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "taken" in done.stderr


def test_models_lists_what_is_here(place: Path) -> None:
    (place / "functions" / "broken").mkdir()
    (place / "functions" / "broken" / "manifest.yaml").write_text("nmae: x")
    entries = json.loads(buoy("models", "--json", folder=place).stdout)
    assert [(entry["name"], entry["weights"]) for entry in entries] == [
        ("broken", "manifest is wrong"), ("tiny", "here"),
    ]  # fmt: skip


def test_check_finds_a_changed_result_and_update_accepts_it(place: Path) -> None:
    sample = place / "functions" / "tiny" / "sample"
    sample.mkdir()
    (sample / "a.png").write_bytes(png(picture_with_squares((0, 0))))
    first = buoy("check", "tiny", folder=place)
    assert first.returncode == 0, "weights that fit are enough"
    assert "buoy check --update" in first.stderr
    assert buoy("check", "tiny", "--update", folder=place).returncode == 0
    assert buoy("check", folder=place).returncode == 0
    (sample / "a.png").write_bytes(png(picture_with_squares((0, 3))))
    done = buoy("check", "tiny", folder=place)
    assert done.returncode == 1
    assert "it was not found" in done.stdout
    assert "it was not expected" in done.stdout


def test_help_lists_every_command_without_loading_it(place: Path) -> None:
    done = buoy("--help", folder=place)
    assert done.returncode == 0
    for command in ("up", "predict", "check", "models", "new", "import", "fdl", "put", "jobs", "logs"):
        assert f"  {command} " in done.stdout
    code = "import sys; from buoy.cli import group; group.run(['--help'])"
    code += "; print(sorted(set(sys.modules) & {'numpy', 'cv2', 'starlette'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith("[]\n")
