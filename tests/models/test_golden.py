"""Every folder under functions/ is tested because it exists."""

import subprocess
import sys
from pathlib import Path

import pytest

from buoy import Engine, Input, Model, golden
from buoy.results import Result
from support.need import CHECKOUT

FOLDERS = sorted(path.parent for path in (CHECKOUT / "functions").glob("*/manifest.yaml"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_the_samples_give_the_expected_results(folder: Path) -> None:
    assert list(golden.differences(folder, Model.load(folder).predict)) == []


def test_many_at_once_find_the_same_as_one_at_a_time(folder: Path) -> None:
    model = Model.load(folder)
    with Engine.open(folder) as engine:
        for outcome in engine.map(Input(path.name, path) for path in golden.pictures(folder) * 3):
            assert isinstance(outcome.record, Result)
            alone = model.predict(golden.pictures(folder)[0].parent / outcome.input.name)
            assert outcome.record.detections == alone.detections


def test_the_folder_has_a_card_and_small_weights(folder: Path) -> None:
    manifest = Model.load(folder).manifest
    card = (folder / "README.md").read_text()
    assert manifest.maturity in card, "the card says how far the weights can be trusted"
    assert manifest.licence in card
    assert (folder / manifest.weights.file).stat().st_size <= 50 << 20


def test_a_golden_comparison_can_fail(folder: Path) -> None:
    strict = Model.load(folder)
    strict.thresholds = type(strict.thresholds)(score=0.9999, iou=0.45)
    assert list(golden.differences(folder, strict.predict))


def test_memory_does_not_grow_with_the_number_of_pictures(folder: Path) -> None:
    code = """
import sys
import subprocess
import sys
from pathlib import Path
from buoy import Engine, Input, golden
import psutil
folder = Path(sys.argv[1])
pictures = golden.pictures(folder)
def resident(rounds):
    for _ in engine.map(Input(path.name, path) for path in pictures * rounds):
        pass
    return psutil.Process().memory_info().rss
with Engine.open(folder) as engine:
    early = resident(4)
    print(resident(12) / early)
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.15
