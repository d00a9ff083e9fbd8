"""What is known of a network before it has a manifest: from a checkpoint, or from an ONNX file alone."""

from __future__ import annotations

import ast
import os
import site
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from buoy import errors
from buoy.errors import BuoyError, UsageError, WeightsError
from buoy.importer.child import ANSWER, Answer, Facts, Job
from buoy.scaffold import check_task
from buoy.session import Session

__all__ = ["ask", "has_ultralytics", "read_labels", "read_onnx"]


def has_ultralytics() -> bool:
    """Whether the export extra is installed."""
    return find_spec("ultralytics") is not None and find_spec("torch") is not None


def ask(job: Job, work: Path) -> Answer:
    """Run the part that needs ultralytics, in a process whose home is the folder `work`.

    Raises:
        BuoyError: the child's, or a WeightsError if it ended without an answer.
    """
    log = work / "child.log"
    with log.open("wb") as out:
        # -P: not even the folder it works in is searched for modules.
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "buoy.importer.child"],
            input=msgspec.json.encode(job), cwd=work, env=_environment(work), stdout=out, stderr=out, check=False,
        )  # fmt: skip
    try:
        data = (work / ANSWER).read_bytes()
    except FileNotFoundError:
        last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise WeightsError(f"{job.name}: the export ended with code {ended.returncode}: {last}") from None
    answer = msgspec.json.decode(data)
    if record := answer.get("error"):
        kind: type[BuoyError] = getattr(errors, record["class"], WeightsError)
        raise kind(record["message"], record["hint"])
    return msgspec.convert(answer, type=Answer)


def read_onnx(path: Path, session: Session, labels: list[str] | None) -> Facts:
    """What an ONNX file says of itself; exporters leave names and task in its metadata (ultralytics does).

    Args:
        path: for messages.
        session: the file, loaded.
        labels: the classes, where the file does not name them or not well.

    Raises:
        UsageError: no class names, or a network of a kind that is not imported yet.
    """
    said = session.metadata
    if task := said.get("task"):
        check_task(task, f"{path.name} is a {task} network, not yet: this version imports detect")
    if said.get("end2end") == "True":
        raise UsageError(
            f"{path.name}: it was exported with suppression built in (end2end)",
            "export it without: yolo export format=onnx nms=None, or import the checkpoint itself",
        )
    if session.input_dtype is not np.float32:
        raise UsageError(f"{path.name}: it takes {session.input_dtype.__name__}", "export it with float32 inputs")
    shape = session.input_shape
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise UsageError(
            f"{path.name}: it takes {list(shape)}, which is not a colour picture",
            "this version imports detectors: (1, 3, height, width) in",
        )
    labels = labels or _named(said.get("names", ""))
    if not labels:
        raise UsageError(
            f"{path.name}: it does not name its classes", "give --classes FILE: one a line, in the order of training"
        )
    height, width = shape[2:] if shape[1] == 3 else shape[1:3]
    maker = (
        f"{said['author']} {said.get('version', '')}".strip()
        if "author" in said
        else "an exporter that it does not name"
    )
    return Facts(labels=labels, size=(height, width), licence=said.get("license", ""), maker=maker)


def read_labels(path: Path) -> list[str]:
    """The classes in a text file, one a line; empty lines do not count.

    Raises:
        UsageError: it cannot be read, or names none.
    """
    try:
        labels = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", "give a UTF-8 text file, one class a line") from error
    if not labels:
        raise UsageError(f"{path}: it names no classes", "one a line, in the order of training")
    return labels


def _named(text: str) -> list[str]:
    """The names of the metadata, which are the text of a Python dict or list."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    if isinstance(names, dict):
        return [str(names[index]) for index in sorted(names)]
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _environment(work: Path) -> dict[str, str]:
    """Ours, with everything that would be written to the user's home written to `work`, and no network asked."""
    home = str(work / "home")
    return {
        **os.environ,
        "PYTHONUSERBASE": site.getuserbase(),  # packages of `pip install --user` are found by HOME otherwise
        "HOME": home,
        "XDG_CONFIG_HOME": f"{home}/config",
        "XDG_CACHE_HOME": f"{home}/cache",
        "MPLCONFIGDIR": f"{home}/matplotlib",
        "TORCH_HOME": f"{home}/torch",
        "YOLO_CONFIG_DIR": f"{home}/ultralytics",
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
