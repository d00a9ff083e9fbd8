import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from buoy import Engine, Input, Outcome, outputs
from buoy.errors import StoreError, UsageError
from buoy.outputs.drawn import COLOURS, draw
from buoy.outputs.obsea import listing
from buoy.results import Result
from support.tiny import make_model, picture_with_squares, png


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    pictures = {
        "two.png": png(picture_with_squares((0, 1), (2, 3))),
        'sub/red, "odd" ü.png': png(picture_with_squares((1, 1), red=True)),
        "none.png": png(np.zeros((64, 64, 3), np.uint8)),
        "bad.png": b"",
    }
    with Engine.open(make_model(tmp_path_factory.mktemp("models")), keep_pixels=True) as engine:
        return list(engine.map(Input(name, data) for name, data in pictures.items()))


def test_csv_has_a_row_for_each_object_and_for_each_picture_without(outcomes: list[Outcome]) -> None:
    text = b"".join(outputs.COLLECTED["csv"].encode(outcome.record for outcome in outcomes)).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["name"], row["status"]) for row in rows] == [
        ("two.png", "found"), ("two.png", "found"), ("sub/red, \"odd\" ü.png", "found"), ("none.png", "none"),
        ("bad.png", "failed"),
    ]  # fmt: skip
    assert [rows[0][side] for side in ("x1", "y1", "x2", "y2")] == ["16.0", "0.0", "32.0", "16.0"]
    assert rows[2]["aphia_id"] == "125559"
    assert "empty" in rows[4]["error"]
    assert {row["maturity"] for row in rows} == {"demo"}


def test_coco_has_every_picture_and_boxes_as_width_and_height(outcomes: list[Outcome]) -> None:
    document = json.loads(b"".join(outputs.COLLECTED["coco"].encode(outcome.record for outcome in outcomes)))
    assert [image["file_name"] for image in document["images"]] == [
        "two.png", "sub/red, \"odd\" ü.png", "none.png",
    ]  # fmt: skip
    assert [note["bbox"] for note in document["annotations"]][:2] == [[16, 0, 16, 16], [48, 32, 16, 16]]
    assert [note["image_id"] for note in document["annotations"]] == [1, 1, 2]
    assert document["categories"] == [
        {"id": 1, "name": "bright"}, {"id": 2, "name": "red", "taxon": {"aphia_id": 125559}},
    ]  # fmt: skip
    assert document["info"]["failed"][0]["file_name"] == "bad.png"
    assert document["info"]["models"][0]["maturity"] == "demo"


def test_the_obsea_list_is_as_the_existing_example_writes_it(outcomes: list[Outcome]) -> None:
    record = outcomes[0].record
    assert isinstance(record, Result)
    assert listing(record)[1] == {
        "taxa": "bright", "confidence": 1.0, "bounding_box_xyxy": [0.75, 0.5, 1.0, 0.75],
    }  # fmt: skip


def test_the_drawn_picture_has_the_box_in_the_colour_of_its_class(outcomes: list[Outcome]) -> None:
    outcome = outcomes[0]
    assert outcome.pixels is not None
    assert isinstance(outcome.record, Result)
    canvas = draw(outcome.record, outcome.pixels)
    assert canvas[30, 48].tolist() == list(COLOURS[0]) or canvas[40, 48].tolist() == list(COLOURS[0])
    assert (outcome.pixels[40, 48] == 255).all(), "the picture itself is untouched"
    data = outputs.FORMATS["drawn"].encode(outcome.record, outcome.pixels)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (64, 64, 3)


def test_files_are_named_after_the_whole_input_name(outcomes: list[Outcome], tmp_path: Path) -> None:
    for outcome in outcomes:
        outputs.write(outcome, list(outputs.FORMATS), tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) == 3 * len(outputs.FORMATS) + 1
    assert {"two.png.json", "two.png.drawn.jpg", "two.png.obsea.json", "bad.png.error.json"} <= written
    error = json.loads((tmp_path / "bad.png.error.json").read_text())
    assert list(error) == ["schema", "input", "model", "error"]
    assert sorted(error["error"]) == ["class", "hint", "message"]


def test_unknown_formats_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="unknown output format: xml"):
        outputs.check_formats(["json", "xml"])
    assert outputs.check_formats(["json", "csv", "json"]) == ["json", "csv"]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match="taken"):
        outputs.save(tmp_path / "taken", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
