"""How a network is run is measured once, remembered, and overruled by the manifest and the caller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from buoy import Engine, machine, tuning
from buoy.manifest import Manifest
from buoy.model import sha256_of
from buoy.tuning import Tuning
from support.tiny import make_model, make_network


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "buoy" / "tuning"


def measured(folder: Path, cache: Path) -> Tuning:
    """Measure until it is remembered: where two measurements do not agree, as on a busy machine, nothing is."""
    manifest, before = Manifest.load(folder), contents(cache)
    while True:
        chosen = tuning.choose(folder, manifest)
        if contents(cache) != before:
            return chosen


def contents(cache: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in cache.glob("*.json")}


def test_it_is_measured_once_and_remembered(tmp_path: Path, cache: Path) -> None:
    folder = make_model(tmp_path)
    manifest = Manifest.load(folder)
    assert tuning.recall(manifest) == tuning.rule()
    chosen = measured(folder, cache)
    assert chosen.callers * chosen.threads == machine.cores()
    (remembered,) = cache.glob("*.json")
    remembered.write_text(json.dumps({"callers": 7, "threads": 3, "batch": 2}))
    assert tuning.choose(folder, manifest) == Tuning(7, 3, 2) == tuning.recall(manifest)


def test_another_network_is_measured_anew(tmp_path: Path, cache: Path) -> None:
    measured(make_model(tmp_path, "one"), cache)
    two = make_model(tmp_path, "two")
    make_network(two / "tiny.onnx", size=128)
    changed = (
        (two / "manifest.yaml").read_text().replace(Manifest.load(two).weights.sha256, sha256_of(two / "tiny.onnx"))
    )
    (two / "manifest.yaml").write_text(changed)
    measured(two, cache)
    assert len(list(cache.glob("*.json"))) == 2


def test_the_manifest_overrules_what_is_measured(tmp_path: Path, cache: Path) -> None:
    folder = make_model(tmp_path, run={"callers": 3, "threads": 2})
    assert tuning.choose(folder, Manifest.load(folder)) == Tuning(3, 2)
    assert not cache.exists()  # there was nothing to measure
    with Engine.open(folder, measure=True) as engine:
        assert (engine.model.session.callers, engine.model.session.threads) == (3, 2)


def test_the_caller_overrules_what_is_remembered(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    assert tuning.choose(folder, Manifest.load(folder), callers=5) == Tuning(5, 1)


@pytest.mark.parametrize("text", ["", "[]", '{"callers": 1}', '{"callers": 1, "threads": 1, "more": 1}'])
def test_a_damaged_memory_is_none(tmp_path: Path, cache: Path, text: str) -> None:
    folder = make_model(tmp_path)
    manifest = Manifest.load(folder)
    measured(folder, cache)
    (remembered,) = cache.glob("*.json")
    remembered.write_text(text)
    assert tuning.recall(manifest) == tuning.rule()
    measured(folder, cache)
    assert json.loads(remembered.read_text())["callers"] >= 1


def test_a_network_that_cannot_be_measured_gets_the_rule(tmp_path: Path, cache: Path) -> None:
    folder = make_model(tmp_path)
    (folder / "tiny.onnx").write_bytes(b"not a network")
    assert tuning.choose(folder, Manifest.load(folder)) == tuning.rule()
    assert not list(cache.glob("*.json"))


def test_engines_that_share_a_machine_have_a_part_of_its_cores_each(tmp_path: Path) -> None:
    """Two with a thread for every core take twice the time for a picture."""
    folder = make_model(tmp_path)
    with Engine.open(folder, cores=1) as engine:
        assert (engine.model.session.callers, engine.model.session.threads) == (1, 1)
    assert tuning.recall(Manifest.load(folder), cores=6) == Tuning(6, 1)
