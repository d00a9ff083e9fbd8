from pathlib import Path

import jsonschema_rs
import msgspec
import numpy as np
import pytest

from buoy import Model, schemas
from buoy.errors import InputError, ManifestError, UsageError, WeightsError
from buoy.folders import find_folder, model_folders
from buoy.model import sha256_of
from buoy.results import Result, decode_record, encode_record
from buoy.tasks import Thresholds
from support.tiny import make_model, make_network, manifest_of, picture_with_squares, png


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(make_model(tmp_path_factory.mktemp("models")))


def without_run(result: Result) -> bytes:
    data = msgspec.to_builtins(result)
    del data["run"]
    return msgspec.json.encode(data)


def test_squares_are_found_where_they_are(model: Model) -> None:
    found = model.predict(png(picture_with_squares((0, 1), (3, 2)))).detections
    assert found
    assert [(each.label, each.box) for each in found] == [("bright", (16, 0, 32, 16)), ("bright", (32, 48, 48, 64))]


def test_boxes_are_in_pixels_of_the_original(model: Model) -> None:
    wide = np.repeat(np.repeat(picture_with_squares((1, 1)), 10, axis=0), 10, axis=1)  # 640 x 640
    found = model.predict(png(wide)).detections
    assert found
    assert found[0].box == pytest.approx((160, 160, 320, 320), abs=1)


def test_taxon_identifiers_come_with_the_label(model: Model) -> None:
    found = model.predict(png(picture_with_squares((2, 2), red=True))).detections
    assert found
    assert (found[0].label, found[0].class_id, found[0].taxon) == ("red", 1, {"aphia_id": 125559})


def test_the_same_input_gives_the_same_bytes_outside_run(model: Model) -> None:
    data = png(picture_with_squares((0, 0), (1, 3)))
    assert without_run(model.predict(data, name="a")) == without_run(model.predict(data, name="a"))


def test_a_result_follows_its_schema_and_reads_back(model: Model) -> None:
    result = model.predict(png(picture_with_squares((0, 0))), name="a.png")
    written = encode_record(result)
    jsonschema_rs.validate(msgspec.json.decode(schemas.documents()["result.schema.json"]), msgspec.json.decode(written))
    assert decode_record(written) == result
    assert list(msgspec.json.decode(written)) == [
        "schema", "input", "model", "task", "parameters", "detections", "run",
    ]  # fmt: skip


def test_thresholds_of_a_call_are_used_and_recorded(model: Model) -> None:
    data = png(picture_with_squares((0, 0), red=True))  # brightness 1/3, redness 1
    assert len(model.predict(data).detections or []) == 1
    result = model.predict(data, thresholds=Thresholds(score=0.2, iou=1.0))
    assert [each.label for each in result.detections or []] == ["red"], "one class for each cell: the best"
    assert result.parameters["score"] == 0.2
    with pytest.raises(UsageError, match="0 to 1"):
        Thresholds(score=float("nan"), iou=0)


def test_a_picture_without_anything_has_an_empty_list(model: Model) -> None:
    assert model.predict(png(np.zeros((50, 70, 3), np.uint8))).detections == []


def test_an_absent_file_is_an_input_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        model.predict(tmp_path / "absent.jpg")


def test_altered_weights_stop_the_load(tmp_path: Path) -> None:
    home = make_model(tmp_path)
    make_network(home / "tiny.onnx", classes=3)
    with pytest.raises(WeightsError, match=f"set weights.sha256 to {sha256_of(home / 'tiny.onnx')}"):
        Model.load(home)


def test_absent_weights_name_where_to_get_them(tmp_path: Path) -> None:
    weights = {"file": "away.onnx", "sha256": "0" * 64, "url": "the address in the card"}
    with pytest.raises(WeightsError, match="download it from the address in the card"):
        Model.load(make_model(tmp_path, weights=weights))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["only"]}, r"classes lists 1 labels, the network has 2"),
        ({"classes": ["a", "b", "c"]}, r"classes lists 3 labels, the network has 2"),
        ({"input": {"size": [32, 64]}}, r"takes \[1, 3, 64, 64\], input.size and input.layout say \[1, 3, 32, 64\]"),
        ({"input": {"size": [64, 64], "layout": "nhwc"}}, r"say \[1, 64, 64, 3\]"),
    ],
)
def test_a_manifest_that_does_not_fit_the_network_stops_the_load(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        Model.load(make_model(tmp_path, **changes))


@pytest.mark.parametrize(("scale", "mean", "std"), [(255, 0, 1), (1, 127.5, 127.5), (255, 0.25, 0.5)])
def test_scale_mean_and_std_are_applied(tmp_path: Path, scale: float, mean: float, std: float) -> None:
    spec = {"size": [64, 64], "scale": scale, "mean": [mean] * 3, "std": [std] * 3}
    model = Model.load(make_model(tmp_path, input=spec, output={"score": 0.01}))
    half = np.full((64, 64, 3), 200, np.uint8)
    found = model.predict(png(half)).detections
    assert found
    assert found[0].score == pytest.approx(min(1.0, (200 / scale - mean) / std), abs=1e-5)


def test_colour_order_is_the_manifests(tmp_path: Path) -> None:
    spec = {"size": [64, 64], "colour": "bgr"}
    model = Model.load(make_model(tmp_path, input=spec))
    assert model.predict(png(picture_with_squares((0, 0), red=True))).detections == []


def test_names_are_looked_up_and_an_unknown_one_lists_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_model(tmp_path, "tiny")
    monkeypatch.setenv("BUOY_FUNCTIONS", str(tmp_path))
    assert find_folder("tiny") == home
    assert model_folders() == [home]
    with pytest.raises(UsageError, match=r"no model 'fish'.*models here: tiny"):
        find_folder("fish")
    assert manifest_of("x")["name"] == "x"
