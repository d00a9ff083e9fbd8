"""The files of a new model folder: what `buoy new` writes, and what `buoy import` fills in."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import yaml

from buoy.errors import UsageError
from buoy.image import Pixels
from buoy.manifest import FILE_NAME, NAME_PATTERN
from buoy.tasks import PLANNED, TASKS

__all__ = ["Draft", "check_name", "check_task", "default_place", "draw_samples", "manifest_text", "placed", "write_new"]

#: In a model folder: where `buoy check` looks for pictures.
SAMPLES = Path("sample")

#: What stands in for the sha256 until the weights are there; `buoy check` tells the real one.
NO_SHA256 = "0" * 64

#: (name, height, width) of the drawn pictures: exact and odd ratios to the usual network sizes.
_DRAWN = (("drawn-1.jpg", 480, 640), ("drawn-2.jpg", 720, 1280), ("drawn-3.jpg", 511, 333))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is filled into the manifest of a new folder."""

    name: str
    task: str
    title: str
    maturity: Literal["demo", "published"]
    weights_file: str
    weights_sha256: str
    #: (height, width) of the network's input, px.
    size: tuple[int, int]
    layout: Literal["nchw", "nhwc"] = "nchw"
    score: float = 0.25
    iou: float = 0.7
    labels: Sequence[str]
    memory: str = "2Gi"
    source_title: str
    licence: str


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model.

    Raises:
        UsageError: the name is too long or has other characters.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"{name!r} cannot be the name of a model",
            "at most 18 lower-case letters, digits and hyphens, a letter first, no hyphen last: it names "
            "services, buckets and images too",
        )


def check_task(task: str, what: str) -> None:
    """Refuse what this version has no task for; `what` begins the message.

    Raises:
        UsageError: naming the task.
    """
    if task in TASKS:
        return
    known = f"this version has {', '.join(TASKS)}; planned: {', '.join(PLANNED)}"
    raise UsageError(f"{what}: the task {task} is not there yet", known)


def default_place() -> Path:
    """Where new model folders go, so that they are found by name: the first of BUOY_FUNCTIONS, or functions/."""
    return Path((os.environ.get("BUOY_FUNCTIONS") or "functions").split(os.pathsep)[0] or "functions")


@contextmanager
def placed(into: Path, name: str, *, force: bool = False) -> Iterator[Path]:
    """Build a folder out of sight and put it at `into/name` when the block ends well; else leave nothing behind.

    Yields:
        The empty folder to fill. It is already called `name`, and its parent is scratch space that is removed.

    Raises:
        UsageError: something is there already and may not be replaced.
    """
    home = into / name
    if home.exists() and not force:
        raise UsageError(f"{home} exists already", "take another name, or --force to replace the folder")
    if home.exists() and not (home / FILE_NAME).is_file():
        raise UsageError(f"{home} is not a model folder: it has no {FILE_NAME}", "it is not replaced: move it away")
    above = [folder for folder in (into, *into.parents) if not folder.exists()]
    into.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=into))
    try:
        building = scratch / name
        building.mkdir()
        yield building
        if home.exists():
            home.rename(scratch / "replaced")
        building.rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in above:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def write_new(name: str, task: str, into: Path) -> Path:
    """Write the folder of a model that has no weights yet: valid but for them.

    Raises:
        UsageError: the name or the task will not do, or the folder exists.
    """
    check_name(name)
    check_task(task, f"buoy new {name}")
    draft = Draft(
        name=name,
        task=task,
        title=name.replace("-", " ").capitalize(),
        maturity="demo",
        weights_file=f"{name}.onnx",
        weights_sha256=NO_SHA256,
        size=(640, 640),
        labels=["first", "second"],
        source_title=f"{name}, not published",
        licence="LicenseRef-not-stated",
    )
    with placed(into, name) as home:
        (home / FILE_NAME).write_text(manifest_text(draft), encoding="utf-8")
        (home / "README.md").write_text(_card(draft), encoding="utf-8")
        draw_samples(home, most=1)
    return into / name


def draw_samples(home: Path, most: int = len(_DRAWN)) -> list[Path]:
    """Write drawn pictures into the samples of a model folder: coloured shapes on a gradient, with grain."""
    folder = home / SAMPLES
    folder.mkdir(exist_ok=True)
    written = []
    for seed, (name, height, width) in enumerate(_DRAWN[:most]):
        path = folder / name
        _, data = cv2.imencode(".jpg", _draw(seed, height, width)[..., ::-1])
        path.write_bytes(data.tobytes())
        written.append(path)
    return written


def manifest_text(draft: Draft) -> str:
    """The manifest as people read it: with the comments that tell what to fill in."""
    height, width = draft.size
    rows = [
        ("# yaml-language-server: $schema=../../schemas/manifest.schema.json", ""),
        (f"name: {draft.name}", "of the folder, the service, the bucket"),
        ('version: "1.0"', ""),
        (f"task: {draft.task}", ""),
        (f"maturity: {draft.maturity}", "demo: nobody should draw conclusions from the results; or published"),
        (f"title: {_scalar(draft.title)}", ""),
        ("weights:", ""),
        (f"  file: {_scalar(draft.weights_file)}", ""),
        (f'  sha256: "{draft.weights_sha256}"', ""),
        ("  # url: https://...", "where the file can be had, if it is not committed"),
        ("input:", ""),
        (f"  size: [{height}, {width}]", "height, width of the network's input"),
        ("  fit: letterbox", "or stretch"),
        ("  colour: rgb", "or bgr"),
        ("  scale: 255", "tensor = (pixel / scale - mean) / std"),
        (f"  layout: {draft.layout}", ""),
        ("output:", ""),
        ("  layout: yolov8", "one tensor (1, 4 + classes, anchors): centre x, y, width, height, scores"),
        (f"  score: {draft.score}", "least score of a detection"),
        (f"  iou: {draft.iou}", "greatest overlap of two detections of one class"),
        ("  max_detections: 300", ""),
        ("classes:", "in the order of training; with identifiers: {label: ..., taxon: {aphia_id: ...}}"),
        *((f"  - {_scalar(label)}", "") for label in draft.labels),
        ("needs:", ""),
        ("  cpu: 1.0", ""),
        (f"  memory: {draft.memory}", ""),
        ("source:", "doi, url, cite, data: who made it, of what, and whom to cite"),
        (f"  title: {_scalar(draft.source_title)}", ""),
        (f"licence: {draft.licence}", "of the weights, as an SPDX name"),
    ]
    return "".join(f"{text:27}  # {comment}\n" if comment else f"{text}\n" for text, comment in rows)


def _card(draft: Draft) -> str:
    return f"""\
# {draft.title}

A model folder written by `buoy new`. It becomes a model in these steps; `buoy check {draft.name}` tells the next one:

1. Put the network here as `{draft.weights_file}`: ONNX, fixed sizes, float32, batch of one, no built-in
   suppression.
2. Copy its sha256 into `manifest.yaml`, and set `input.size`, `classes` and the rest to what it was trained with.
3. Put pictures that it should know into `sample/` in place of the drawn one, and keep their results as the expected
   ones: `buoy check {draft.name} --update`. Look at them first:
   `buoy predict {draft.name} sample -o out --format drawn`.
4. Write here what the model finds, what it was trained on, how well it does, and where it should not be used.
"""


def _scalar(value: Any) -> str:
    """One value as YAML on one line, quoted where YAML would read something else."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1 << 20).strip()[1:-1]


def _draw(seed: int, height: int, width: int) -> Pixels:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 90 / height + 20, columns * 120 / width + 60, 150 - rows * 60 / height], axis=-1)
    canvas = pixels.astype(np.uint8)
    for _ in range(25):
        centre = int(random.integers(width)), int(random.integers(height))
        axes = int(random.integers(8, max(9, width // 6))), int(random.integers(6, max(7, height // 8)))
        colour = [int(value) for value in random.integers(0, 256, 3)]
        cv2.ellipse(canvas, centre, axes, float(random.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    grain = random.normal(0, 6, canvas.shape)
    return np.clip(canvas + grain, 0, 255).astype(np.uint8)
