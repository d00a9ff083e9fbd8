"""A checkpoint or an ONNX file becomes a model folder, if our results are those of the software it comes from.

A checkpoint (.pt) is a pickle: reading it runs code that is in it. It is read only because a person named it on the
command line, never because it was uploaded, and in a process of its own (`buoy.importer.child`).
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from buoy import golden, scaffold
from buoy.errors import ManifestError, UsageError, WeightsError
from buoy.image import decode
from buoy.importer import network, parity
from buoy.importer.card import card
from buoy.importer.child import Answer, Facts, Job
from buoy.importer.parity import Box, Parity
from buoy.manifest import FILE_NAME, Manifest
from buoy.model import Model, read_file, sha256_of
from buoy.scaffold import SAMPLES, Draft
from buoy.session import Session
from buoy.tasks import Thresholds

__all__ = ["Imported", "Request", "import_model", "measure"]

#: As golden.py finds samples, and what other endings become.
_ENDINGS = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png", ".tif": ".tif", ".tiff": ".tif", ".webp": ".webp"}

#: ultralytics' predict: iou and max_det of its `cfg/default.yaml`, conf of its `engine/model.py`.
_USUAL = Thresholds(score=0.25, iou=0.7)
_MOST = 300


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to import, and how."""

    source: Path
    name: str
    into: Path
    samples: Sequence[Path] = ()
    #: (height, width) of the network's input, px; by default what it was trained with.
    size: tuple[int, int] | None = None
    #: A text file with the classes, for ONNX files that do not name them.
    classes: Path | None = None
    maturity: Literal["demo", "published"] = "demo"
    force: bool = False


@dataclass
class Imported:
    """The new folder, and what should be known of it."""

    folder: Path
    manifest: Manifest
    #: None where there was nothing to compare with.
    parity: Parity | None
    notes: list[str] = field(default_factory=list)


def import_model(request: Request, tell: Callable[[str], None] = lambda step: None) -> Imported:
    """Make a model folder, prove it, and put it in its place; on any error nothing is left behind.

    Args:
        request: what to import.
        tell: called with each step, before it.

    Raises:
        UsageError: the request will not do, or the network is of a kind that is not imported yet.
        WeightsError: the network cannot be read, or our results differ from ultralytics' own.
        InputError: a sample picture cannot be read.
    """
    scaffold.check_name(request.name)
    source = _check_source(request)
    with scaffold.placed(request.into, request.name, force=request.force) as home:
        imported = _build(request, source, home, tell)
    return replace(imported, folder=request.into / request.name)


def measure(model: Model, pictures: Sequence[Path], reference: dict[str, list[Box]]) -> Parity:
    """Compare our detections in the pictures with the reference, by file name, all found with the score `FLOOR`."""
    thresholds = Thresholds(parity.FLOOR, model.thresholds.iou)
    scores = [box.score for boxes in reference.values() for box in boxes]
    found = Parity(score=parity.threshold_for(scores, model.thresholds.score))
    for path in pictures:
        seen = model.predict(path, thresholds=thresholds).detections or []
        ours = [Box(each.class_id, each.score, each.box) for each in seen]
        parity.compare(path.name, ours, reference[path.name], thresholds.iou, found)
    return found


def _check_source(request: Request) -> Path:
    source = request.source
    if not source.is_file():
        raise UsageError(f"{source}: no such file", "give a checkpoint (.pt) or an ONNX file (.onnx)")
    if source.suffix not in (".pt", ".onnx"):
        raise UsageError(f"{source}: only .pt and .onnx files are imported", "export it to ONNX first")
    if source.suffix == ".pt" and request.classes:
        raise UsageError(
            f"{source}: a checkpoint names its classes", "leave --classes out, and change the manifest after"
        )
    if source.suffix == ".pt" and not network.has_ultralytics():
        raise UsageError(
            f"{source}: reading a checkpoint needs torch and ultralytics, which are not installed here",
            "pip install 'buoy[export]', or import an ONNX file: yolo export model=... format=onnx opset=17",
        )
    return source.resolve()


def _build(request: Request, source: Path, home: Path, tell: Callable[[str], None]) -> Imported:
    work = home.parent / "work"
    (work / "home").mkdir(parents=True)
    pictures = _place_samples(request.samples, home)
    tell(f"reading {source.name}")
    weights = home / f"{request.name}.onnx"
    facts, reference, notes = (_from_checkpoint if source.suffix == ".pt" else _from_onnx)(
        request, source, weights, pictures, work
    )
    draft = _draft(request, facts, weights)
    tell("checking the folder, and our results against ultralytics' own" if reference else "checking the folder")
    model = _load(home, draft)
    found = measure(model, pictures, reference) if reference is not None else None
    if found:
        _check_parity(request, found, len(pictures))
        notes += _remarks(found, drawn=not request.samples)
    golden.write_expected(model, home)
    if faults := list(golden.differences(home, model.predict)):
        raise WeightsError(f"{request.name}: two runs differ: {faults[0]}", "this is a fault of buoy: please report it")
    draft = replace(draft, memory=_memory())
    (home / FILE_NAME).write_text(scaffold.manifest_text(draft), encoding="utf-8")
    (home / "README.md").write_text(card(draft, facts, source.name, found, bool(request.samples)), encoding="utf-8")
    return Imported(home, Manifest.load(home), found, [*facts.notes, *notes])


_Read = tuple[Facts, dict[str, list[Box]] | None, list[str]]


def _from_checkpoint(request: Request, source: Path, weights: Path, pictures: list[Path], work: Path) -> _Read:
    # The exporter writes beside what it reads: it is given a copy.
    shutil.copyfile(source, work / "network.pt")
    answer = network.ask(_job(request, work / "network.pt", pictures, request.size), work)
    if answer.facts is None:
        raise WeightsError(f"{source.name}: the export told nothing of it", "this is a fault of buoy: please report it")
    (work / answer.facts.exported).rename(weights)
    return answer.facts, answer.reference, []


def _from_onnx(request: Request, source: Path, weights: Path, pictures: list[Path], work: Path) -> _Read:
    shutil.copyfile(source, weights)
    session = Session(weights)
    labels = network.read_labels(request.classes) if request.classes else None
    facts = network.read_onnx(source, session, labels)
    if request.size and request.size != facts.size:
        raise UsageError(
            f"--size {request.size[0]} {request.size[1]}: the size of {source.name} is fixed: "
            f"{facts.size[0]} {facts.size[1]}",
            "leave --size out, or export it again with that size",
        )
    if session.metadata.get("author") != "Ultralytics":
        return facts, None, ["not compared with anything: the file does not come from ultralytics' exporter"]
    if not network.has_ultralytics():
        return (
            facts,
            None,
            ["not compared with ultralytics' own results: it is not installed (pip install 'buoy[export]')"],
        )
    answer: Answer = network.ask(_job(request, weights, pictures, facts.size), work)
    return facts, answer.reference, []


def _job(request: Request, file: Path, pictures: list[Path], size: tuple[int, int] | None) -> Job:
    return Job(
        name=request.source.name, file=str(file.resolve()), pictures=[str(path.resolve()) for path in pictures],
        size=size, score=parity.FLOOR, iou=_USUAL.iou, most=_MOST,
    )  # fmt: skip


def _place_samples(samples: Sequence[Path], home: Path) -> list[Path]:
    """Copy the pictures in, each readable and under a name of its own; draw some where none is given."""
    if not samples:
        return scaffold.draw_samples(home)
    folder = home / SAMPLES
    folder.mkdir()
    for path in samples:
        ending = _ENDINGS.get(path.suffix.lower())
        if ending is None:
            raise UsageError(f"--sample {path}: not a picture by its name", f"known endings: {', '.join(_ENDINGS)}")
        target = folder / f"{path.stem}{ending}"
        if target.exists():
            raise UsageError(f"--sample {path}: another one has this name", "rename one of them")
        data = read_file(path)
        decode(data)
        target.write_bytes(data)
    return golden.pictures(home)


def _draft(request: Request, facts: Facts, weights: Path) -> Draft:
    return Draft(
        name=request.name,
        task="detect",
        title=f"{request.name}, imported from {request.source.name}",
        maturity=request.maturity,
        weights_file=weights.name,
        weights_sha256=sha256_of(weights),
        size=facts.size,
        layout="nchw" if Session(weights, threads=1).input_shape[1] == 3 else "nhwc",
        score=_USUAL.score,
        iou=_USUAL.iou,
        labels=facts.labels,
        source_title=request.source.name,
        # ultralytics writes "AGPL-3.0 License (https://ultralytics.com/license)"
        licence="AGPL-3.0-only" if "AGPL-3.0" in facts.licence else "LicenseRef-not-stated",
    )


def _load(home: Path, draft: Draft) -> Model:
    (home / FILE_NAME).write_text(scaffold.manifest_text(draft), encoding="utf-8")
    try:
        return Model.load(home)
    except ManifestError as error:  # its path and line are of a file that nobody will see
        last = error.message.replace(f"{home}/", "")
        raise UsageError(f"{draft.source_title}: it does not make a valid model: {last}", error.hint) from error


def _check_parity(request: Request, found: Parity, pictures: int) -> None:
    if found.ok:
        return
    lines = "\n  ".join(found.worst())
    raise WeightsError(
        f"{request.source.name}: our results are not those of ultralytics: {len(found.faults)} differences "
        f"in {pictures} pictures ({parity.BOX_TOLERANCE_PX} px and {parity.SCORE_TOLERANCE} in score are allowed). "
        f"The largest:\n  {lines}\n",
        "nothing was imported; report it with the checkpoint, or the name of its yaml file",
    )


def _remarks(found: Parity, *, drawn: bool) -> list[str]:
    what = "drawn pictures" if drawn else "sample pictures"
    remedy = "give pictures that the network knows with --sample"
    if not found.compared:
        return [f"the {what} give not a single box: that our results are ultralytics' own was not shown; {remedy}"]
    if found.compared < parity.ENOUGH:
        return [f"only {found.compared} boxes were compared with ultralytics' own; {remedy}"]
    return []


def _memory() -> str:
    """What this process took at the most, and a quarter more, in steps of half a gibibyte; at least the usual."""
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    halves = max(4, -(-int(peak_mib * 1.25) // 512))
    return f"{halves // 2}Gi" if halves % 2 == 0 else f"{halves * 512}Mi"
