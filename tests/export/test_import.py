"""`buoy import` of real checkpoints, against ultralytics itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from buoy import golden, image
from buoy.cli.group import run
from buoy.errors import BuoyError, UsageError, WeightsError
from buoy.importer import Request, import_model, measure, network
from buoy.importer.child import Job
from buoy.importer.parity import FLOOR, Box
from buoy.manifest import Manifest
from buoy.model import Model
from export.ultralytics_side import BOXES, LETTERBOXES, picture

pytestmark = pytest.mark.export

SIDE_SCRIPT = Path(__file__).with_name("ultralytics_side.py")
SIDE = 320
DETECTORS = ["yolov5n", "yolov8n", "yolo11n", "yolo26n"]
OTHERS = {"yolov8n-seg": "segment", "yolov8n-obb": "obb", "yolov8n-cls": "classify"}


def ultralytics_side(home: Path, *arguments: str) -> None:
    """Run the script with a home of its own."""
    if not network.has_ultralytics():
        assert os.environ.get("CI") != "true", "the export stage needs the export extra"
        pytest.skip("torch and ultralytics are not installed: pip install 'buoy[export]'")
    work = home / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", str(SIDE_SCRIPT), *arguments], env=network._environment(work), cwd=work,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    yamls = [f"{name}.yaml" for name in (*DETECTORS, *OTHERS)]
    ultralytics_side(folder, "checkpoints", str(folder), "3", str(SIDE), *yamls)
    return folder


@pytest.fixture(scope="session")
def imported(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder imported from a checkpoint."""
    into = tmp_path_factory.mktemp("imported")
    return import_model(Request(source=checkpoints / "yolov8n.pt", name="my-fish", into=into)).folder


@pytest.fixture(scope="session")
def reference(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Box]]:
    """What ultralytics finds in the samples of that folder."""
    work = tmp_path_factory.mktemp("reference")
    (work / "home").mkdir()
    pictures = [str(path) for path in golden.pictures(imported)]
    weights = str(imported / "my-fish.onnx")
    job = Job(name="it", file=weights, pictures=pictures, size=(SIDE, SIDE), score=FLOOR, iou=0.7, most=300)
    return network.ask(job, work).reference


@pytest.mark.parametrize("name", DETECTORS)
def test_a_checkpoint_becomes_a_model_with_the_results_of_ultralytics(
    name: str, checkpoints: Path, tmp_path: Path
) -> None:
    done = import_model(Request(source=checkpoints / f"{name}.pt", name="my-fish", into=tmp_path))
    assert done.parity
    assert done.parity.compared >= 30
    assert done.parity.largest_px < 0.1
    manifest = Manifest.load(done.folder)
    assert manifest.labels == ["kind 0", "kind 1", "kind 2"]
    assert manifest.input.size == (SIDE, SIDE)
    assert manifest.maturity == "demo"
    assert manifest.licence == "AGPL-3.0-only"
    assert list(golden.differences(done.folder, Model.load(done.folder).predict)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["my-fish"]


def test_another_size_and_own_pictures_are_taken(checkpoints: Path, tmp_path: Path) -> None:
    drawn = golden.pictures(_with_samples(tmp_path))[0]
    source = checkpoints / "yolo11n.pt"
    done = import_model(Request(source=source, name="wide", into=tmp_path / "new", samples=[drawn], size=(192, 416)))
    assert done.parity
    assert done.parity.compared >= 10
    assert done.manifest.input.size == (192, 416)
    assert [path.name for path in golden.pictures(done.folder)] == [drawn.name]


def _with_samples(folder: Path) -> Path:
    from buoy.scaffold import draw_samples

    draw_samples(folder)
    return folder


def test_a_size_between_two_steps_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    request = Request(source=checkpoints / "yolov8n.pt", name="my-fish", into=tmp_path / "new", size=(500, 640))
    with pytest.raises(UsageError, match="--size 512 640"):
        import_model(request)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "task"), OTHERS.items())
def test_other_tasks_are_not_yet_imported_and_named(name: str, task: str, checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{task} checkpoint, not yet: this version imports detect"):
        import_model(Request(source=checkpoints / f"{name}.pt", name="my-fish", into=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "best.pt"
    source.write_bytes(b"this is not a checkpoint")
    with pytest.raises(WeightsError, match=r"best\.pt: ultralytics cannot read it"):
        import_model(Request(source=source, name="my-fish", into=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_an_import_with_other_results_is_refused_and_leaves_nothing(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "PAD_GREY", 0)  # our side only: ultralytics runs in another process
    with pytest.raises(WeightsError, match="our results are not those of ultralytics") as caught:
        import_model(Request(source=checkpoints / "yolov8n.pt", name="my-fish", into=tmp_path / "new"))
    assert "drawn-" in caught.value.message
    assert "px and" in caught.value.message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("colour", "bgr"), ("fit", "stretch"), ("scale", 250), ("mean", [0.01, 0.0, 0.0])]
)
def test_parity_fails_with_a_wrong_manifest(
    key: str, value: object, imported: Path, reference: dict[str, list[Box]], tmp_path: Path
) -> None:
    pictures, weights = golden.pictures(imported), imported / "my-fish.onnx"
    assert measure(Model.load(imported), pictures, reference).ok
    changed = tmp_path / "my-fish"
    changed.mkdir()
    (changed / weights.name).write_bytes(weights.read_bytes())
    manifest = yaml.safe_load((imported / "manifest.yaml").read_text())
    manifest["input"][key] = value
    (changed / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    assert not measure(Model.load(changed), pictures, reference).ok


def test_an_exported_onnx_file_is_compared_too(imported: Path, tmp_path: Path) -> None:
    done = import_model(Request(source=imported / "my-fish.onnx", name="other", into=tmp_path))
    assert done.parity
    assert done.parity.compared >= 30
    assert done.manifest.labels == ["kind 0", "kind 1", "kind 2"]


def test_the_command_asks_no_network_and_leaves_the_home_alone(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, home, guard = tmp_path / "asked", tmp_path / "home", tmp_path / "guard"
    home.mkdir()
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        f"import socket\n"
        f"def refuse(*arguments, **keywords):\n"
        f"    open({str(asked)!r}, 'a').write(repr(arguments) + chr(10))\n"
        f"    raise OSError('the test has no network')\n"
        f"socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
    )
    proof = subprocess.run(
        [sys.executable, "-P", "-c", "import socket; socket.getaddrinfo('localhost', 80)"],
        env={**os.environ, "PYTHONPATH": str(guard)}, capture_output=True, check=False,
    )  # fmt: skip
    assert proof.returncode != 0, "the guard must be seen by the child"
    asked.unlink()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(guard), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert run(["import", str(checkpoints / "yolo11n.pt"), "--name", "my-fish", "--json"]) == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert made["folder"] == "functions/my-fish"
    assert made["parity"]["compared"] >= 30
    assert "AGPL-3.0" in err
    assert not asked.exists(), asked.read_text()
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["functions", "guard", "home"]
    assert sorted(path.name for path in checkpoints.glob("yolo11n*")) == ["yolo11n.pt"]


def test_letterbox_is_that_of_ultralytics_pixel_for_pixel(tmp_path: Path) -> None:
    ultralytics_side(tmp_path, "letterbox", str(tmp_path / "reference.npz"))
    reference = np.load(tmp_path / "reference.npz")
    for index, (size, frame) in enumerate(LETTERBOXES):
        framed, fit = image.letterbox(picture(index, *size), frame)
        assert np.array_equal(framed, reference[f"frame{index}"]), (size, frame)
        back = fit.boxes_to_picture(np.array(BOXES, np.float32))
        # scale_boxes rounds to float32
        np.testing.assert_allclose(back, reference[f"boxes{index}"], atol=2e-3, err_msg=f"{size} {frame}")


def test_every_refusal_of_the_child_is_an_error_of_ours(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    job = Job(name="x.pt", file=str(checkpoints / "absent.pt"), pictures=[], size=None, score=0.1, iou=0.5, most=9)
    with pytest.raises(BuoyError, match=r"x\.pt"):
        network.ask(job, tmp_path)
