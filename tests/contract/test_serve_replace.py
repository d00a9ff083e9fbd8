"""A new version of a model takes over while requests come in."""

from __future__ import annotations

import shutil
import signal
import threading
from collections import Counter
from pathlib import Path

from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png, set_version

PICTURE = png(picture_with_squares((0, 0), (2, 3)))
LOAD = "/v2/repository/models/tiny/load"


def ask_until(stop: threading.Event, served: Served, seen: Counter[str]) -> None:
    with served.client() as http:
        while not stop.is_set():
            answer = http.post("/predict", content=PICTURE, headers={"Content-Type": "image/png"})
            seen[answer.json()["model"]["version"] if answer.status_code == 200 else str(answer.status_code)] += 1


def test_a_new_version_takes_over_under_load_without_one_failed_request(tmp_path: Path) -> None:
    model, seen, stop = make_model(tmp_path), Counter[str](), threading.Event()
    with serving(tmp_path, model, options=("--max-wait", "30")) as served, served.client() as http:
        callers = [threading.Thread(target=ask_until, args=(stop, served, seen)) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            for version in ("2.0", "3.0"):
                set_version(model, version)
                answer = http.post(LOAD)
                assert answer.json() == {"name": "tiny", "version": version}
                served.until(lambda version=version: seen[version] > 20)
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        assert set(seen) == {"1.0", "2.0", "3.0"}
        served.until(lambda: len(served.children) == 1)  # those before have left
        assert http.get("/v2/models/tiny").json()["versions"] == ["3.0"]
        (row,) = http.post("/v2/repository/index").json()
        assert (row["version"], row["state"]) == ("3.0", "READY")


def test_a_folder_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    with serving(tmp_path, model) as served, served.client() as http:
        (model / "tiny.onnx").write_bytes(b"half a fi")
        refused = http.post(LOAD)
        assert refused.status_code == 409
        assert refused.json()["error"].startswith(str(model / "tiny.onnx"))
        assert http.post("/predict", content=PICTURE, headers={"Content-Type": "image/png"}).status_code == 200
        served.until(lambda: len(served.children) == 1)


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    model, other = make_model(tmp_path), make_model(tmp_path / "elsewhere", "other")
    with serving(tmp_path, model) as served, served.client() as http:
        shutil.copyfile(other / "manifest.yaml", model / "manifest.yaml")
        refused = http.post(LOAD)
        assert refused.status_code == 400
        assert "'other'" in refused.json()["error"]
        assert http.get("/v2/models/tiny/ready").status_code == 200
        served.until(lambda: len(served.children) == 1)


def test_a_hang_up_loads_the_folders_again(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    with serving(tmp_path, model) as served, served.client() as http:
        set_version(model, "2.0")
        served.process.send_signal(signal.SIGHUP)
        served.until(lambda: http.get("/v2/models/tiny").json()["versions"] == ["2.0"])
