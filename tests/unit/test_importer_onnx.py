"""`buoy import` of ONNX files that do not come from ultralytics: no torch needed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import onnx
import pytest

from buoy import golden
from buoy.cli.group import run
from buoy.errors import InputError, UsageError, WeightsError
from buoy.importer import Imported, Request, import_model, network
from buoy.model import Model
from support.tiny import make_network, picture_with_squares

NAMES = "{0: 'bright', 1: 'red'}"


def onnx_file(folder: Path, classes: int = 2, **metadata: str) -> Path:
    """A tiny detector with what exporters write beside the graph."""
    path = make_network(folder / "net.onnx", classes=classes)
    loaded = onnx.load(path)
    for key, value in metadata.items():
        entry = loaded.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(loaded, path)
    return path


def sample(folder: Path, name: str = "fish.png") -> Path:
    path = folder / name
    _, data = cv2.imencode(".png" if name.endswith("png") else ".jpg", picture_with_squares((1, 2))[..., ::-1])
    path.write_bytes(data.tobytes())
    return path


def import_it(source: Path, into: Path, **more: object) -> Imported:
    return import_model(Request(source=source, name="my-fish", into=into, **more))  # type: ignore[arg-type]


def test_an_onnx_file_that_names_its_classes_becomes_a_model(tmp_path: Path) -> None:
    source = onnx_file(tmp_path, names=NAMES, task="detect")
    done = import_it(source, tmp_path / "functions", samples=[sample(tmp_path)])
    model = Model.load(tmp_path / "functions" / "my-fish")
    assert done.folder == tmp_path / "functions" / "my-fish"
    assert model.manifest.labels == ["bright", "red"]
    assert model.manifest.input.size == (64, 64)
    assert model.manifest.maturity == "demo"
    assert list(golden.differences(done.folder, model.predict)) == []
    (found,) = json.loads((done.folder / golden.EXPECTED).read_text())["fish.png"]
    assert (found["label"], found["box"]) == ("bright", [32.0, 16.0, 48.0, 32.0])
    assert sorted(path.name for path in done.folder.iterdir()) == [
        "README.md",
        "manifest.yaml",
        "my-fish.onnx",
        "sample",
    ]
    assert source.is_file()


def test_what_was_not_compared_is_said(tmp_path: Path) -> None:
    done = import_it(onnx_file(tmp_path, names=NAMES), tmp_path / "functions")
    assert done.parity is None
    assert any("not compared" in note for note in done.notes)
    assert "Not compared" in (done.folder / "README.md").read_text()
    assert "LicenseRef-not-stated" in (done.folder / "manifest.yaml").read_text()


def test_classes_come_from_a_file_where_the_network_does_not_name_them(tmp_path: Path) -> None:
    source = onnx_file(tmp_path)
    with pytest.raises(UsageError, match="does not name its classes; give --classes"):
        import_it(source, tmp_path / "functions")
    (tmp_path / "classes.txt").write_text("Chromis chromis\n\nno\n")
    done = import_it(source, tmp_path / "functions", classes=tmp_path / "classes.txt")
    assert done.manifest.labels == ["Chromis chromis", "no"]


def test_a_wrong_number_of_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("only one")
    with pytest.raises(UsageError, match="classes lists 1 labels, the network has 2"):
        import_it(onnx_file(tmp_path), tmp_path / "functions", classes=tmp_path / "classes.txt")
    assert not (tmp_path / "functions").exists()


@pytest.mark.parametrize("task", ["segment", "obb", "classify"])
def test_other_tasks_are_not_yet_imported_and_named(task: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{task} network, not yet: this version imports detect"):
        import_it(onnx_file(tmp_path, names=NAMES, task=task), tmp_path / "functions")
    assert not (tmp_path / "functions").exists()


def test_suppression_inside_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="end2end"):
        import_it(onnx_file(tmp_path, names=NAMES, end2end="True"), tmp_path / "functions")


def test_a_file_that_is_no_network_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match="ONNX Runtime cannot load it"):
        import_it(tmp_path / "net.onnx", tmp_path / "deep" / "functions")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("name", ["fish.jpg", "fish.gif"])
def test_a_sample_that_is_no_picture_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("not a picture")
    with pytest.raises((InputError, UsageError), match="not a"):
        import_it(onnx_file(tmp_path, names=NAMES), tmp_path / "functions", samples=[tmp_path / name])
    assert not (tmp_path / "functions").exists()


def test_samples_get_the_endings_that_are_looked_for_and_never_overwrite(tmp_path: Path) -> None:
    source, capital = onnx_file(tmp_path, names=NAMES), sample(tmp_path, "A.JPEG")
    done = import_it(source, tmp_path / "functions", samples=[capital])
    assert [path.name for path in golden.pictures(done.folder)] == ["A.jpg"]
    with pytest.raises(UsageError, match="another one has this name"):
        import_it(source, tmp_path / "other", samples=[capital, sample(tmp_path, "A.jpg")])


def test_an_existing_model_is_replaced_only_when_forced(tmp_path: Path) -> None:
    source, into = onnx_file(tmp_path, names=NAMES), tmp_path / "functions"
    first = import_it(source, into)
    (first.folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        import_it(source, into)
    assert (first.folder / "notes.txt").is_file()
    import_it(source, into, maturity="published", force=True)
    assert not (first.folder / "notes.txt").exists()
    assert Model.load(first.folder).info.maturity == "published"
    assert [path.name for path in into.iterdir()] == ["my-fish"]


def test_a_folder_that_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "my-fish").mkdir()
    (tmp_path / "my-fish" / "thesis.doc").write_text("mine")
    with pytest.raises(UsageError, match="not a model folder"):
        import_it(onnx_file(tmp_path, names=NAMES), tmp_path, force=True)
    assert (tmp_path / "my-fish" / "thesis.doc").is_file()


def test_the_size_of_an_onnx_file_is_fixed(tmp_path: Path) -> None:
    source = onnx_file(tmp_path, names=NAMES)
    with pytest.raises(UsageError, match=r"the size of net\.onnx is fixed: 64 64"):
        import_it(source, tmp_path / "functions", size=(640, 640))
    assert import_it(source, tmp_path / "functions", size=(64, 64)).manifest.input.size == (64, 64)


def test_wrong_requests_are_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "has_ultralytics", lambda: False)
    (tmp_path / "best.pt").write_bytes(b"")
    (tmp_path / "best.tflite").write_bytes(b"")
    for name, message in [
        ("absent.onnx", "no such file"),
        ("best.tflite", "only .pt and .onnx"),
        ("best.pt", "needs torch and ultralytics"),
    ]:
        with pytest.raises(UsageError, match=message):
            import_it(tmp_path / name, tmp_path / "functions")
    with pytest.raises(UsageError, match="cannot be the name"):
        import_model(Request(source=onnx_file(tmp_path), name="My Fish", into=tmp_path / "functions"))
    assert not (tmp_path / "functions").exists()


def test_the_command_tells_programs_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, into = onnx_file(tmp_path, names=NAMES), tmp_path / "functions"
    assert run(["import", str(source), "--name", "my-fish", "--into", str(into), "--json"]) == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert made["folder"] == str(into / "my-fish")
    assert made["classes"] == ["bright", "red"]
    assert made["parity"] is None
    assert "not compared" in err
    assert run(["check", str(into / "my-fish")]) == 0
    assert run(["import", str(source), "--name", "my-fish", "--into", str(into)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_help_warns_of_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "--help"]) == 0
    assert "only import checkpoints you trust" in " ".join(capsys.readouterr().out.split())
