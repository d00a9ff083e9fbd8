"""Sinks of streams in a real service: what is seen arrives, whatever the other sinks do."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.live import pushing
from support.receiver import closed_port, hanging, receiver
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares

FRAMES = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


def write_pictures(folder: Path) -> None:
    """A square in every second one."""
    folder.mkdir()
    for number in range(FRAMES):
        cells = [(1, 2)] if number % 2 else []
        cv2.imwrite(str(folder / f"{number:03}.png"), cv2.cvtColor(picture_with_squares(*cells), cv2.COLOR_RGB2BGR))


def shown(served: Served, stream: str) -> dict[str, Any]:
    with served.client() as http:
        answer = http.get(f"/streams/{stream}")
    found: dict[str, Any] = answer.json()
    return found


def test_a_folder_goes_through_all_sinks_though_some_of_them_hang(model: Path, tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    write_pictures(pictures)
    rule = {"label": "bright", "score": 0.5, "k": 2, "n": 4, "cooldown_s": 3600}
    options = ("--data", str(tmp_path / "data"))
    with receiver() as to, hanging() as stuck, serving(tmp_path, model, options=options) as served:
        spec = {
            "name": "reef",
            "source": str(pictures),
            "dark_below": 0,
            "frozen_after_s": 0,
            "sinks": [
                {"kind": "bucket", "to": str(out / "lines")},
                {"kind": "bucket", "to": str(out / "table"), "format": "csv"},
                {"kind": "bucket", "to": str(model / "manifest.yaml" / "no-folder")},
                {"kind": "webhook", "to": to.url, **rule},
                {"kind": "webhook", "to": stuck, **rule, "k": 1, "cooldown_s": 0},
                {"kind": "webhook", "to": f"http://127.0.0.1:{closed_port()}/", **rule},
            ],
        }
        with served.client() as http:
            assert http.post("/streams", json=spec).status_code == 201
        served.until(lambda: shown(served, "reef")["counts"]["processed"] == FRAMES)
        served.until(lambda: len(to.alerts) == 1)
        sinks = shown(served, "reef")["sinks"]
        assert [sink["written"] for sink in sinks[:3]] == [FRAMES] * 3
        served.until(lambda: shown(served, "reef")["sinks"][5]["state"] == "failing")
        served.until(lambda: served.metric("buoy_stream_sink_dropped_total", stream="reef", reason="late") > 0)
        with served.client() as http:
            assert http.delete("/streams/reef").status_code == 204
    lines = [json.loads(line) for path in (out / "lines").rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert sorted(line["input"]["frame"]["number"] for line in lines if "input" in line) == [*range(FRAMES)]
    rows = [row for path in (out / "table").rglob("*.csv") for row in csv.DictReader(path.read_text().splitlines())]
    assert [row["status"] for row in rows if row["status"] != "gap"].count("found") == FRAMES // 2
    picture = base64.b64decode(to.alerts[0]["picture"]["base64"])
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[0] == decoded.shape[1] <= 960
    assert decoded.max() > 128
    assert to.alerts[0]["model"]["maturity"] == "demo"


def test_a_killed_service_sends_what_it_had_seen_when_it_is_there_again(model: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", ("--data", str(tmp_path / "data"))
    picture = cv2.imencode(".jpg", np.full((64, 64, 3), 255, np.uint8))[1].tobytes()
    spec = {"name": "quay", "source": "push:", "frozen_after_s": 0, "sinks": [{"kind": "bucket", "to": str(out)}]}
    with serving(tmp_path, model, options=options) as served:
        with served.client() as http:
            assert http.post("/streams", json=spec).status_code == 201
        with pushing(served, "quay", picture):
            served.until(lambda: shown(served, "quay")["sinks"][0]["written"] >= 20)
            written = shown(served, "quay")["sinks"][0]["written"]
            served.process.kill()
            served.process.wait()
    assert not out.exists()
    with serving(tmp_path, model, options=options):
        pass
    numbers = [
        json.loads(line)["input"]["frame"]["number"]
        for path in out.rglob("*.jsonl")
        for line in path.read_bytes().splitlines()
        if b'"buoy.result/1"' in line
    ]
    assert len(numbers) == len(set(numbers)) >= written
