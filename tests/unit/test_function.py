"""The function: one event in, files and an honest exit code out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from buoy import function, outputs
from buoy.engine import Engine
from buoy.errors import StoreError, UsageError
from buoy.function import Event, Setup, answer
from buoy.model import Model
from support.tiny import make_model, picture_with_squares


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = Model.load(make_model(tmp_path_factory.mktemp("functions")))
    with Engine(model, keep_pixels=True) as engine:
        yield engine


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def write_picture(path: Path, *cells: tuple[int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", picture_with_squares(*cells))
    assert done
    path.write_bytes(data.tobytes())
    return path


def write_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def record(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def test_a_picture_gives_its_result(engine: Engine, tmp_path: Path, out: Path) -> None:
    path = write_picture(tmp_path / "a.png", (0, 0), (2, 1))
    report = answer(engine, path, out)
    assert (report.done, report.failed, report.exit_code) == (1, 0, 0)
    assert report.written == [out / "a.png.json"]
    assert files(out) == ["a.png.json"]
    result = record(out / "a.png.json")
    assert result["input"]["name"] == "a.png"
    assert [found["box"] for found in result["detections"]] == [[0, 0, 16, 16], [16, 32, 32, 48]]


def test_every_format_is_written(engine: Engine, tmp_path: Path, out: Path) -> None:
    answer(engine, write_picture(tmp_path / "a.png"), out, formats=tuple(outputs.FORMATS))
    assert files(out) == sorted(f"a.png{kind.suffix}" for kind in outputs.FORMATS.values())


def test_a_zip_gives_a_result_for_every_entry(engine: Engine, tmp_path: Path, out: Path) -> None:
    good = write_picture(tmp_path / "a.png", (0, 0)).read_bytes()
    path = write_zip(tmp_path / "batch.zip", {"a.png": good, "dir/b.png": good, "bad.jpg": b"text", "../c.png": good})
    lines: list[str] = []
    report = answer(engine, path, out, say=lines.append)
    assert (report.done, report.failed, report.exit_code) == (2, 2, 3)
    assert files(out) == [
        "batch.zip/a.png.json",
        "batch.zip/bad.jpg.error.json",
        "batch.zip/c.png.error.json",
        "batch.zip/dir/b.png.json",
    ]
    assert record(out / "batch.zip/dir/b.png.json")["input"]["name"] == "batch.zip/dir/b.png"
    assert "points outside" in record(out / "batch.zip/c.png.error.json")["error"]["message"]
    assert lines[-1] == "2 done, 2 failed"
    assert lines[2].startswith("batch.zip/bad.jpg: failed: ")


def test_a_picture_called_zip_is_a_picture_and_the_other_way_round(engine: Engine, tmp_path: Path, out: Path) -> None:
    picture = write_picture(tmp_path / "picture.zip")
    archive = write_zip(tmp_path / "archive.png", {"a.png": picture.read_bytes()})
    assert answer(engine, picture, out).exit_code == 0
    assert answer(engine, archive, out).exit_code == 0
    assert files(out) == ["archive.png/a.png.json", "picture.zip.json"]


def test_a_broken_zip_fails_as_a_whole_and_names_its_size_and_hash(engine: Engine, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "batch.zip"
    path.write_bytes(b"PK\x03\x04 and no more")
    assert answer(engine, path, out).exit_code == 3
    failure = record(out / "batch.zip.error.json")
    assert failure["error"]["class"] == "ArchiveError"
    assert failure["error"]["hint"]
    assert failure["input"]["size_bytes"] == path.stat().st_size
    assert len(failure["input"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"just text", "starts like text"), (b"\xff\xd8\xff", "header is broken")]
)
def test_a_failed_input_gives_an_error_record_and_exit_code_3(
    engine: Engine, tmp_path: Path, out: Path, content: bytes, says: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    report = answer(engine, tmp_path / "a.jpg", out)
    assert report.exit_code == 3
    assert files(out) == ["a.jpg.error.json"]
    error = record(out / "a.jpg.error.json")["error"]
    assert error["class"] == "InputError"
    assert says in error["message"]


def test_an_input_that_is_not_there_gives_an_error_record(engine: Engine, tmp_path: Path, out: Path) -> None:
    assert answer(engine, tmp_path / "gone.jpg", out).exit_code == 3
    assert "no such file" in record(out / "gone.jpg.error.json")["error"]["message"]


@pytest.mark.parametrize(
    ("object_key", "input_path", "name"),
    [
        ("input/2011/05/x.png", "tiny/input", "2011/05/x.png"),
        ("input/x.png", "tiny/input/", "x.png"),
        ("input/x.png", "/tiny/input", "x.png"),
        ("input/2011/x.png", "input", "2011/x.png"),  # OSCAR puts it into the service's own bucket
        ("a/b/2011/x.png", "tiny/a/b", "2011/x.png"),
        ("inputs/2011/x.png", "tiny/input", "x.png"),
        ("2011/x.png", "tiny/input", "x.png"),
        ("2011/x.png", "", "x.png"),
        ("input/../../x.png", "tiny/input", "x.png"),
        ("input//x.png", "tiny/input", "x.png"),
        ("input/a b+ñ/x.png", "tiny/input", "a b+ñ/x.png"),
        ("", "tiny/input", "x.png"),
    ],
)
def test_sub_folders_below_the_input_path_are_kept(
    engine: Engine, tmp_path: Path, out: Path, object_key: str, input_path: str, name: str
) -> None:
    path = write_picture(tmp_path / "x.png")
    answer(engine, path, out, object_key=object_key, input_path=input_path)
    assert files(out) == [f"{name}.json"]
    assert record(out / f"{name}.json")["input"]["name"] == name


def test_a_full_disk_stops_with_the_cause_and_leaves_whole_files(
    engine: Engine, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real thing, on a small file system, is in tests/contract/test_full_disk.py where mounting is allowed.
    good = write_picture(tmp_path / "a.png").read_bytes()
    path = write_zip(tmp_path / "batch.zip", {f"{number}.png": good for number in range(5)})
    real, calls = os.replace, []

    def replace(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(StoreError, match=r"No space left.*free some space"):
        answer(engine, path, out)
    assert files(out) == ["batch.zip/0.png.json", "batch.zip/1.png.json"]


def test_the_environment_is_read_with_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"INPUT_FILE_PATH is not set.*buoy predict"):
        Event.read({"TMP_OUTPUT_DIR": "/tmp/out"})
    with pytest.raises(UsageError, match="TMP_OUTPUT_DIR is not set"):
        Event.read({"INPUT_FILE_PATH": "/tmp/x.jpg"})
    with pytest.raises(UsageError, match="BUOY_MODEL is not set"):
        Setup.read({})
    with pytest.raises(UsageError, match="there is no model 'nothing'"):
        Setup.read({"BUOY_MODEL": "nothing"})
    home = make_model(tmp_path)
    with pytest.raises(UsageError, match="unknown output format: jsn"):
        Setup.read({"BUOY_MODEL": str(home), "BUOY_OUTPUTS": "json,jsn"})
    setup = Setup.read({"BUOY_MODEL": str(home), "BUOY_OUTPUTS": " csv, drawn ,", "BUOY_INPUT": "tiny/input"})
    assert setup == Setup(home, ("csv", "drawn"), "tiny/input")
    assert setup.draws
    assert Setup.read({"BUOY_MODEL": str(home)}).formats == ("json",)


def run(
    tmp_path: Path, out: Path, path: Path | str, model: Path | str, **more: str
) -> subprocess.CompletedProcess[str]:
    """`buoy function` as the script starts it."""
    env = {
        "PATH": os.environ["PATH"],
        "INPUT_FILE_PATH": str(path),
        "TMP_OUTPUT_DIR": str(out),
        "BUOY_MODEL": str(model),
    }
    command = [sys.executable, "-c", "import sys; from buoy.cli import main; sys.argv[1:] = ['function']; main()"]
    return subprocess.run(command, env=env | more, capture_output=True, text=True, cwd=tmp_path, timeout=120)


def test_the_command_answers_a_picture(tmp_path: Path, out: Path) -> None:
    model = make_model(tmp_path / "functions")
    path = write_picture(tmp_path / "in" / "a b+ñ.png", (1, 1))
    ended = run(tmp_path, out, path, "tiny", STORAGE_OBJECT_KEY="input/2011/a b+ñ.png", BUOY_INPUT="tiny/input")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert files(out) == ["2011/a b+ñ.png.json"]
    first, second = ended.stderr.splitlines()
    assert "tiny 1.0 (demo weights: draw no conclusions" in first
    assert second.startswith("2011/a b+ñ.png: 1 found, ")
    assert files(model.parent.parent) == sorted(
        ["functions/tiny/manifest.yaml", "functions/tiny/tiny.onnx", "in/a b+ñ.png", "out/2011/a b+ñ.png.json"]
    )


def test_the_short_way_out_keeps_exit_code_and_log(tmp_path: Path, out: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    env = {
        "INPUT_FILE_PATH": str(tmp_path / "a.png"),
        "TMP_OUTPUT_DIR": str(out),
        "BUOY_MODEL": str(make_model(tmp_path)),
    }
    ended = subprocess.run(
        [sys.executable, "-c", "from buoy.function import run; run()"],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 3
    assert "a.png: failed: the file is empty" in ended.stderr
    assert files(out) == ["a.png.error.json"]


def test_the_command_answers_a_zip_with_failures(tmp_path: Path, out: Path) -> None:
    model = make_model(tmp_path)
    path = write_zip(tmp_path / "x.zip", {"a.png": write_picture(tmp_path / "a.png").read_bytes(), "b.png": b""})
    ended = run(tmp_path, out, path, model, BUOY_OUTPUTS="json,drawn")
    assert ended.returncode == 3, ended.stderr
    assert files(out) == ["x.zip/a.png.drawn.jpg", "x.zip/a.png.json", "x.zip/b.png.error.json"]


def test_the_command_leaves_a_record_when_the_model_cannot_be_loaded(tmp_path: Path, out: Path) -> None:
    model = make_model(tmp_path)
    with (model / "tiny.onnx").open("ab") as weights:
        weights.write(b"altered")
    path = write_picture(tmp_path / "a.png")
    ended = run(tmp_path, out, path, model)
    assert ended.returncode == 1
    assert "sha256" in ended.stderr
    assert "Traceback" not in ended.stderr
    failure = record(out / "a.png.error.json")
    assert failure["error"]["class"] == "WeightsError"
    assert failure["model"]["name"] == "tiny"
    assert failure["input"]["size_bytes"] == path.stat().st_size


@pytest.mark.parametrize("missing", ["INPUT_FILE_PATH", "TMP_OUTPUT_DIR", "BUOY_MODEL"])
def test_the_command_names_the_variable_that_is_missing(tmp_path: Path, out: Path, missing: str) -> None:
    ended = run(tmp_path, out, write_picture(tmp_path / "a.png"), make_model(tmp_path), **{missing: ""})
    assert ended.returncode == 1
    assert f"the environment variable {missing} is not set" in ended.stderr
    assert files(out) == (["a.png.error.json"] if missing == "BUOY_MODEL" else [])


def test_the_command_says_where_it_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    ended = run(tmp_path, tmp_path / "out", write_picture(tmp_path / "a.png"), make_model(tmp_path))
    assert ended.returncode == 1
    assert str(tmp_path / "out") in ended.stderr
    assert "the error record could not be written either" in ended.stderr


def test_a_crash_in_the_model_is_told_and_recorded(
    engine: Engine, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object) -> None:
        raise RuntimeError("something nobody thought of")

    monkeypatch.setattr(function, "is_zip", burst)
    lines: list[str] = []
    event = Event(write_picture(tmp_path / "a.png"), out)
    assert function.attempt(engine, event, Setup(tmp_path), lines.append) == 1
    assert "something nobody thought of" in lines[-1]
    assert record(out / "a.png.error.json")["error"]["class"] == "JobError"
