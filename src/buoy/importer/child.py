"""The part that needs ultralytics: run as a process of its own, `python -m buoy.importer.child`.

A process of its own, because ultralytics writes settings, fonts and reports into the user's home, installs packages
and asks the network, by variables that it reads once, at its import; because a checkpoint is a pickle and runs code
when it is read; and because torch keeps a gigabyte. It reads a `Job` on stdin and writes an `Answer`, or our error,
into answer.json of its working directory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from buoy.errors import BuoyError, UsageError, WeightsError
from buoy.image import decode
from buoy.importer.parity import Box
from buoy.scaffold import check_task

__all__ = ["ANSWER", "Answer", "Facts", "Job"]

ANSWER = Path("answer.json")

OPSET = 17

#: ultralytics trains at 640 unless told otherwise (`cfg/default.yaml`).
USUAL_SIDE = 640


class Job(Struct):
    """A network to read, and the pictures to run it over. `name` is what messages call it."""

    name: str
    file: str
    pictures: list[str]
    #: (height, width), px; by default what it was trained with.
    size: tuple[int, int] | None
    score: float
    iou: float
    most: int


class Facts(Struct):
    """What a network says of itself."""

    labels: list[str]
    size: tuple[int, int]
    licence: str
    #: Who made the ONNX file, for the card.
    maker: str
    notes: list[str] = []
    #: File name of the exported network, in the working directory.
    exported: str = ""


class Answer(Struct):
    """Facts of a checkpoint (none of an ONNX file), and ultralytics' own boxes in each picture."""

    facts: Facts | None
    reference: dict[str, list[Box]]


def main() -> None:
    """Do the job on stdin."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        facts = _export(job) if Path(job.file).suffix == ".pt" else None
        size = facts.size if facts else job.size
        assert size, "an ONNX file has a size"
        answer: Any = Answer(facts, _reference(job, size))
    except BuoyError as error:
        answer = {"error": error.record()}
    ANSWER.write_bytes(msgspec.json.encode(answer))


def _export(job: Job) -> Facts:
    """Write the checkpoint's network as ONNX: fixed size, batch of one, suppression left to us.

    Raises:
        UsageError: it is of a kind that is not imported yet, or the size does not fit.
        WeightsError: ultralytics cannot read it.
    """
    import torch
    import ultralytics

    network = _load(job)
    module, stride = network.model, int(max(network.model.stride))
    _check_kind(job.name, network)
    checkpoint = network.ckpt or {}
    notes: list[str] = []
    size = job.size or _trained_size(checkpoint, notes)
    fitting = tuple(-(-side // stride) * stride for side in size)
    if fitting != size and job.size:
        raise UsageError(
            f"--size {size[0]} {size[1]}: the network works in steps of {stride} pixels",
            f"the next larger one is --size {fitting[0]} {fitting[1]}",
        )
    size = (fitting[0], fitting[1])  # what ultralytics does to a training size that is between two steps
    if getattr(module.model[-1], "one2one_cv2", None) is not None:
        notes.append("it has a second head that needs no suppression: the first is used, as ultralytics' predict does")
    try:
        # nms=None leaves suppression out; False would take the second head, with another layout.
        exported = network.export(
            format="onnx", imgsz=list(size), opset=OPSET, batch=1, dynamic=False, simplify=False, nms=None, device="cpu"
        )
    except Exception as error:  # torch, onnx and ultralytics each raise their own
        raise WeightsError(
            f"{job.name}: ultralytics cannot export it: {_first_line(error)}", "try: yolo export"
        ) from error
    return Facts(
        labels=[str(module.names[index]) for index in sorted(module.names)],
        size=size,
        licence=str(checkpoint.get("license") or ""),
        maker=f"ultralytics {ultralytics.__version__}, torch {torch.__version__}, opset {OPSET}",
        notes=notes,
        exported=Path(exported).name,
    )


def _load(job: Job) -> Any:
    from ultralytics.models.yolo.model import YOLO

    try:
        network: Any = YOLO(job.file, task=None if job.file.endswith(".pt") else "detect")
        if job.file.endswith(".pt"):
            network.model.float()
        return network
    except Exception as error:  # anything at all: a pickle runs code
        raise WeightsError(
            f"{job.name}: ultralytics cannot read it: {_first_line(error)}",
            "it must be a checkpoint that this version of ultralytics has written or can read",
        ) from error


def _check_kind(name: str, network: Any) -> None:
    from ultralytics.nn.modules import Detect

    if network.task != "detect":
        check_task(network.task, f"{name} is a {network.task} checkpoint, not yet: this version imports detect")
    head = network.model.model[-1]
    if not isinstance(head, Detect):
        raise UsageError(
            f"{name}: networks with the head {type(head).__name__} are not imported yet",
            "this version imports detectors of the YOLO family (v5u, v8 and later)",
        )
    channels = network.model.yaml.get("channels", 3)
    if channels != 3:
        raise UsageError(f"{name}: it takes {channels} channels", "this version imports networks for colour pictures")


def _trained_size(checkpoint: dict[str, Any], notes: list[str]) -> tuple[int, int]:
    given = (checkpoint.get("train_args") or {}).get("imgsz")
    if given is None:
        notes.append(f"the checkpoint does not say its training size: {USUAL_SIDE} is assumed (set it with --size)")
        given = USUAL_SIDE
    height, width = given if isinstance(given, list | tuple) else (given, given)
    return int(height), int(width)


def _reference(job: Job, size: tuple[int, int]) -> dict[str, list[Box]]:
    """The detections of ultralytics itself, by file name, with its own reading of JPEG files."""
    network = _load(job)  # anew: the export has fused the other one
    found: dict[str, list[Box]] = {}
    for path in map(Path, job.pictures):
        # Other formats it reads in its own ways (16 bits, palettes); it takes arrays as BGR.
        source: Any = str(path) if path.suffix == ".jpg" else decode(path.read_bytes())[..., ::-1].copy()
        try:
            (result,) = network.predict(
                source, imgsz=list(size), rect=False, device="cpu", conf=job.score, iou=job.iou, max_det=job.most,
                verbose=False, save=False,
            )  # fmt: skip
        except Exception as error:
            raise WeightsError(f"{job.name}: ultralytics fails on {path.name}: {_first_line(error)}") from error
        boxes = result.boxes
        rows = zip(boxes.cls.int().tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
        found[path.name] = [Box(class_id, score, tuple(box)) for class_id, score, box in rows]
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


if __name__ == "__main__":
    main()
