"""The resident worker: what the script would give, without its start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from support.tiny import make_model, picture_with_squares


class Worker:
    """A worker process and both ends of its protocol."""

    def __init__(self, model: Path | str, lanes: int = 2, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "buoy.worker"],
            env={"PATH": os.environ["PATH"], "BUOY_MODEL": str(model), "BUOY_LANES": str(lanes), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, *jobs: dict[str, Any] | bytes) -> None:
        assert self.process.stdin
        for job in jobs:
            self.process.stdin.write((job if isinstance(job, bytes) else json.dumps(job).encode()) + b"\n")
        self.process.stdin.flush()

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the worker has ended"
        reply: dict[str, Any] = json.loads(line)
        return reply

    def do(self, **job: Any) -> dict[str, Any]:
        self.send({"id": 1, **job})
        return self.reply()

    def end(self) -> tuple[bytes, int]:
        """Close its stdin; what it still said, and its exit code."""
        output, _ = self.process.communicate(timeout=60)
        return output, self.process.returncode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


FORMATS = "json,csv,coco,obsea,drawn"


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[Worker]:
    worker = Worker(model, BUOY_OUTPUTS=FORMATS, BUOY_INPUT="tiny/input")
    ready = worker.reply()
    assert ready == {"ready": True, "model": "tiny", "pid": worker.process.pid}
    yield worker
    assert worker.end() == (b"", 0)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A picture, zips, and files that fail in every way."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    good = cv2.imencode(".png", picture_with_squares((0, 0), (2, 3)))[1].tobytes()
    red = cv2.imencode(".jpg", cv2.cvtColor(picture_with_squares((1, 1), red=True), cv2.COLOR_RGB2BGR))[1].tobytes()
    files = {
        "a b+ñ.png": good,
        "red.jpg": red,
        "empty.jpg": b"",
        "cut.jpg": red[:-40],
        "text.jpg": b"text",
        "x.zip": b"PK\x03\x04",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "batch.zip", "w") as batch:
        for name, content in {"a.png": good, "d/red.jpg": red, "bad.jpg": b"text", "../e.png": good}.items():
            batch.writestr(name, content)
    return {path.name: path for path in folder.iterdir()} | {"gone.jpg": folder / "gone.jpg"}


def by_script(path: Path, out: Path, model: Path, object_key: str) -> tuple[int, str]:
    env = {
        "PATH": os.environ["PATH"], "BUOY_MODEL": str(model), "BUOY_OUTPUTS": FORMATS, "BUOY_INPUT": "tiny/input",
        "INPUT_FILE_PATH": str(path), "TMP_OUTPUT_DIR": str(out), "STORAGE_OBJECT_KEY": object_key,
    }  # fmt: skip
    code = "import sys; from buoy.cli import main; sys.argv[1:] = ['function']; main()"
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def outputs(folder: Path) -> dict[str, bytes]:
    """All files, without what may differ between two runs."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if content.startswith(b'{\n  "schema"'):
                content = re.sub(rb',\n  "run": \{[^\n]*\}\n', b"\n", content)
            found[str(path.relative_to(folder))] = content
    return found


def timeless(log: str) -> str:
    return re.sub(r", \d+ ms", ", N ms", log)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a b+ñ.png", 0), ("red.jpg", 0), ("batch.zip", 3), ("empty.jpg", 3), ("cut.jpg", 3), ("text.jpg", 3),
        ("x.zip", 3), ("gone.jpg", 3),
    ],
)  # fmt: skip
def test_outputs_exit_code_and_log_are_those_of_the_script(
    worker: Worker, model: Path, inputs: dict[str, Path], tmp_path: Path, name: str, code: int
) -> None:
    warm, cold = tmp_path / "warm", tmp_path / "cold"
    warm.mkdir()
    cold.mkdir()
    key = f"input/2011/{name}"
    reply = worker.do(input=str(inputs[name]), output_dir=str(warm), object_key=key)
    exit_code, log = by_script(inputs[name], cold, model, key)
    assert (reply["id"], reply["exit"]) == (1, code)
    assert exit_code == code
    assert timeless(reply["log"]) == timeless(log)
    assert outputs(warm) == outputs(cold)
    expected = (
        {f"2011/{name}.error.json"} if code else {f"2011/{name}.json", f"2011/{name}.drawn.jpg", f"2011/{name}.csv"}
    )
    if name == "batch.zip":
        expected = {f"2011/{name}/{end}" for end in ("a.png.json", "d/red.jpg.drawn.jpg", "bad.jpg.error.json")}
    assert expected <= set(outputs(warm))


def test_a_job_that_cannot_write_fails_alone(worker: Worker, inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    (tmp_path / "out").mkdir()
    reply = worker.do(input=str(inputs["red.jpg"]), output_dir=str(tmp_path / "file"))
    assert reply["exit"] == 1
    assert str(tmp_path / "file") in reply["log"]
    assert worker.do(input=str(inputs["red.jpg"]), output_dir=str(tmp_path / "out"))["exit"] == 0


@pytest.mark.parametrize("line", [b"{", b"[]", b"7", b'{"id": 9}', b'{"id": 9, "input": 1, "output_dir": 2}'])
def test_a_line_that_is_no_job_is_answered(worker: Worker, line: bytes) -> None:
    worker.send(line)
    reply = worker.reply()
    assert reply["exit"] == 1
    assert "not a job" in reply["log"]
    assert reply["id"] == (9 if b"id" in line else None)


def test_at_the_end_of_its_input_it_finishes_what_it_took(model: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    worker = Worker(model)
    jobs = []
    for number in range(40):
        out = tmp_path / str(number)
        out.mkdir()
        jobs.append({"id": number, "input": str(inputs["red.jpg"]), "output_dir": str(out), "object_key": ""})
    worker.send(*jobs)
    said, code = worker.end()
    ready, *replies = [json.loads(line) for line in said.splitlines()]
    assert ready["ready"] is True
    assert code == 0
    assert sorted(reply["id"] for reply in replies) == list(range(40))
    assert {reply["exit"] for reply in replies} == {0}
    assert all((tmp_path / str(number) / "red.jpg.json").is_file() for number in range(40))


def test_an_interrupt_from_the_terminal_leaves_it_to_its_parent(
    model: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    worker = Worker(model)
    worker.reply()
    worker.process.send_signal(signal.SIGINT)
    assert worker.do(input=str(inputs["red.jpg"]), output_dir=str(tmp_path))["exit"] == 0
    assert worker.end() == (b"", 0)


def test_nobody_left_to_read_replies_is_no_crash(model: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    worker = Worker(model)
    worker.reply()
    assert worker.process.stdout
    worker.process.stdout.close()
    worker.send({"id": 1, "input": str(inputs["red.jpg"]), "output_dir": str(tmp_path)})
    assert worker.process.stdin
    worker.process.stdin.close()
    assert worker.process.stderr
    with worker.process.stderr as errors:
        assert b"Traceback" not in errors.read()
    assert worker.process.wait(60) == 0
    assert (tmp_path / "red.jpg.json").is_file()


@pytest.mark.parametrize(
    ("env", "class_", "says"),
    [
        ({"BUOY_MODEL": "nothing"}, "UsageError", "there is no model 'nothing'"),
        ({"BUOY_LANES": "0"}, "UsageError", "BUOY_LANES"),
        ({"BUOY_LANES": "two"}, "UsageError", "BUOY_LANES"),
        ({"BUOY_OUTPUTS": "pdf"}, "UsageError", "unknown output format: pdf"),
    ],
)
def test_a_worker_that_cannot_start_says_why(model: Path, env: dict[str, str], class_: str, says: str) -> None:
    worker = Worker(model, **env)
    reply = worker.reply()
    assert reply["ready"] is False
    assert reply["error"]["class"] == class_
    assert says in reply["error"]["message"]
    assert worker.end() == (b"", 1)


def test_weights_that_were_altered_are_told(tmp_path: Path) -> None:
    home = make_model(tmp_path)
    (home / "tiny.onnx").write_bytes(b"altered")
    worker = Worker(home)
    assert worker.reply()["error"]["class"] == "WeightsError"
    assert worker.end() == (b"", 1)


def test_stray_prints_do_not_reach_the_protocol(model: Path) -> None:
    code = """
import os, sys, subprocess
from buoy import worker
real = worker.Engine.open
def open_(*args, **settings):
    print("a library that prints"); os.write(1, b"a C library that prints\\n"); subprocess.run(["echo", "a child"])
    return real(*args, **settings)
worker.Engine.open = open_
sys.exit(worker.main())
"""
    env = {"PATH": os.environ["PATH"], "BUOY_MODEL": str(model)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, input="", capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["ready"] is True
    for line in ("a library that prints", "a C library that prints", "a child"):
        assert line in ended.stderr
