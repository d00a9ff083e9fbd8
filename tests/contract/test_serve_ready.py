"""When `buoy serve` says that it is ready, and how soon it is again after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import numpy as np
import onnx
import yaml

from buoy.model import sha256_of
from support.rtsp import free_port
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}
BUOY = str(Path(sys.executable).with_name("buoy"))


def ready_again_s(served: Served) -> float:
    """Kill the inference process; how long until a picture is looked at."""
    began_s = time.monotonic()
    os.kill(served.children[0], signal.SIGKILL)
    with served.client() as http:
        while http.post("/predict", content=GOOD, headers=JPEG).status_code != 200:
            assert time.monotonic() - began_s < 60
            time.sleep(0.02)
    return time.monotonic() - began_s


def test_after_a_kill_it_is_back_about_as_soon_as_a_process_can_load(tmp_path: Path) -> None:
    """The log tells how long the new process took, under whatever load there is now.

    Twice that, and 2 s for what other programs take of this machine before the kill is noticed and after the process
    is ready: a back-off in front of the first attempt, or a second attempt, is longer.
    """
    with serving(tmp_path, make_model(tmp_path)) as served:
        took_s = ready_again_s(served)
        starts = [line["start_s"] for line in served.log if line["event"] == "ready"]
        assert len(starts) == 2
        assert took_s <= 2 * starts[-1] + 2
        assert served.metric("buoy_worker_restarts_total", model="tiny") == 1
        assert 0 < served.metric("buoy_model_load_seconds", model="tiny") <= starts[-1]


def child_of(parent: int, model: Path) -> int | None:
    """The inference process of a model, as soon as it runs its own program; before, it is a copy of its parent."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if b"buoy.serve.child" in words and str(model).encode() in words:
            return int(child)
    return None


@contextmanager
def held_while_loading(first: Path, second: Path) -> Iterator[tuple[httpx2.Client, int]]:
    """A service of two models, of which the second one's process stands still from its first moment on."""
    port = free_port()
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([BUOY, "serve", str(first), str(second), "--port", str(port)], stdout=subprocess.PIPE)
        )
        stack.callback(process.terminate)
        ends_s = time.monotonic() + 30
        while (child := child_of(process.pid, second)) is None:
            assert time.monotonic() < ends_s
        os.kill(child, signal.SIGSTOP)
        stack.callback(os.kill, child, signal.SIGCONT)
        yield stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0)), child


def until_status(http: httpx2.Client, path: str, status: int) -> None:
    """Wait until the address answers so."""
    ends_s = time.monotonic() + 60
    while True:
        try:
            if http.get(path).status_code == status:
                return
        except httpx2.ConnectError:
            pass
        assert time.monotonic() < ends_s, path
        time.sleep(0.02)


def test_it_is_ready_when_each_model_is(tmp_path: Path) -> None:
    first, second = make_model(tmp_path, "first"), make_model(tmp_path, "second")
    with held_while_loading(first, second) as (http, child):
        until_status(http, "/v2/models/first/ready", 200)
        for _ in range(3):
            assert http.get("/v2/health/live").status_code == 200
            assert http.get("/v2/health/ready").status_code == 503
            assert http.get("/v2/models/second/ready").status_code == 503
            for path in ("/models/second/predict", "/v2/models/second/infer"):
                refused = http.post(path, content=GOOD, headers=JPEG)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
            assert http.post("/models/first/predict", content=GOOD, headers=JPEG).status_code == 200
        os.kill(child, signal.SIGCONT)
        until_status(http, "/v2/health/ready", 200)
        assert http.post("/models/second/predict", content=GOOD, headers=JPEG).status_code == 200
        assert http.get("/v2/models/second/ready").status_code == 200


def test_it_is_ready_only_when_the_first_run_has_gone_well(tmp_path: Path) -> None:
    """The network can be loaded, and fails in every run: it takes a picture out of a batch that has none there."""
    home = make_model(tmp_path, run={"callers": 1, "threads": 1})  # so nothing is measured, which would run it too
    network = onnx.load(home / "tiny.onnx")
    network.graph.node[-1].output[0] = "all"
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([99]), "beyond"))
    network.graph.node.append(onnx.helper.make_node("Gather", ["all", "beyond"], ["output0"], axis=0))
    onnx.save(network, home / "tiny.onnx")
    manifest = yaml.safe_load((home / "manifest.yaml").read_text())
    manifest["weights"]["sha256"] = sha256_of(home / "tiny.onnx")
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    ended = subprocess.run(
        [BUOY, "serve", str(home), "--port", "0", "--json"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert '"url"' not in ended.stdout
    assert "Gather" in ended.stdout


def test_the_first_run_is_measured(tmp_path: Path) -> None:
    with serving(tmp_path, make_model(tmp_path)) as served:
        assert served.metric("buoy_model_warm_up_seconds", model="tiny") > 0
        assert served.metric("nv_inference_count") == 0  # it is nobody's request
