"""The error record of a picture that ended its model's process, which could not write it any more."""

from __future__ import annotations

import hashlib
from pathlib import Path

from buoy.errors import BuoyError, JobError
from buoy.gateway.deliver import Workplace
from buoy.gateway.services import Service
from buoy.gateway.state import Job
from buoy.manifest import Manifest
from buoy.results import Failure, InputInfo, ModelInfo, encode_record

__all__ = ["write_error_record"]


def write_error_record(job: Job, service: Service, place: Workplace, error: JobError) -> None:
    """Leave `<name>.error.json` among the job's outputs, where its result would have been."""
    if place.input is None:
        return
    name = _name(job, service, place.input)
    with place.input.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    seen = InputInfo(name=name, size_bytes=place.input.stat().st_size, sha256=digest)
    record = Failure.of(error, seen, _model(service.variables.get("BUOY_MODEL", "")))
    path = place.output_dir / f"{name}.error.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_record(record))


def _name(job: Job, service: Service, path: Path) -> str:
    """As `buoy.function` names inputs: by their path below the service's input."""
    folder = service.variables.get("BUOY_INPUT", "").strip(" /")
    folder = folder.partition("/")[2] if "/" in folder else folder
    below = job.key.removeprefix(f"{folder}/")
    return below if folder and job.bucket and below != job.key else path.name


def _model(name: str) -> ModelInfo:
    from buoy.model import find_folder  # OpenCV comes with it

    try:
        manifest = Manifest.load(find_folder(name))
    except BuoyError:
        return ModelInfo(name=name, version="unknown", weights_sha256="", maturity="demo")
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        weights_sha256=manifest.weights.sha256,
        maturity=manifest.maturity,
    )
