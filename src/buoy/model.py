"""A model folder, loaded: one input in, one result out."""

from __future__ import annotations

import hashlib
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from buoy.errors import InputError, WeightsError
from buoy.folders import find_folder
from buoy.image import Pixels, Sample
from buoy.manifest import FILE_NAME, Manifest
from buoy.results import FrameInfo, InputInfo, ModelInfo, Result, RunInfo
from buoy.session import Session
from buoy.tasks import Task, Thresholds, make_task
from buoy.version import VERSION

__all__ = ["Model", "Sighting", "sha256_of"]


@dataclass(frozen=True)
class Sighting:
    """A result together with the picture it was found in, for those who draw."""

    result: Result
    #: (H, W, 3) uint8, RGB, upright, perhaps of reduced size; absent if it was not to be kept.
    pixels: Pixels | None


class Model:
    """One model in memory. The function, the batch, the exposed service and the command line all call it.

    Safe to call from several threads; `callers` of them run the network at once.
    """

    def __init__(self, manifest: Manifest, session: Session, task: Task) -> None:
        self.manifest = manifest
        self.session = session
        self._task = task
        self.info = ModelInfo(
            name=manifest.name,
            version=manifest.version,
            weights_sha256=manifest.weights.sha256,
            maturity=manifest.maturity,
        )
        self.thresholds = Thresholds(manifest.output.score, manifest.output.iou)

    @classmethod
    def load(cls, folder: Path | str, *, threads: int | None = None, callers: int = 1, batch: int = 1) -> Model:
        """Load a model folder and prove that weights and manifest belong together.

        Args:
            folder: the model's folder, or its name (see `find_folder`).
            threads: ONNX Runtime's threads within one run; by default all cores.
            callers: how many threads may run the network at once.
            batch: how many inputs it may be run on at once, where its batch size is free.

        Raises:
            ManifestError: the manifest is wrong, or does not fit the network.
            WeightsError: the weights are absent, altered, or not a network.
        """
        folder = find_folder(folder)
        manifest = Manifest.load(folder)
        weights = folder / manifest.weights.file
        _verify(weights, manifest)
        session = Session(weights, threads=threads, callers=callers, batch=batch)
        task = make_task(manifest)
        task.check(session.input_shape, session.output_shapes)
        return cls(manifest, session, task)

    def predict(
        self, picture: bytes | Path | str, *, name: str | None = None, thresholds: Thresholds | None = None
    ) -> Result:
        """Look at one picture.

        Args:
            picture: its encoded bytes, or the path of its file.
            name: what to call it in the result; by default the file's name.
            thresholds: other than the manifest's.

        Raises:
            InputError: it cannot be read.
        """
        return self.look(picture, name=name, thresholds=thresholds, keep_pixels=False).result

    def look(
        self,
        picture: bytes | Path | str | Pixels,
        *,
        name: str | None = None,
        frame: FrameInfo | None = None,
        thresholds: Thresholds | None = None,
        keep_pixels: bool = True,
    ) -> Sighting:
        """The same, and the decoded picture with it; takes decoded frames of a video too.

        Args:
            picture: its encoded bytes, the path of its file, or (H, W, 3) uint8 RGB pixels.
            name: what to call it in the result; by default the file's name.
            frame: where it stands in a stream.
            thresholds: other than the manifest's.
            keep_pixels: hand the decoded picture on.

        Raises:
            InputError: it cannot be read.
        """
        thresholds = thresholds or self.thresholds
        started, clock = datetime.now(UTC), [time.perf_counter()]
        data = read_file(Path(picture)) if isinstance(picture, (str, Path)) else picture
        sample = self._task.read(data) if isinstance(data, bytes) else Sample.full(data)
        _, height, width = sample
        tensors, context = self._task.prepare(sample)
        pixels = sample.pixels if keep_pixels else None
        del sample  # several megabytes that need not wait for the network
        clock.append(time.perf_counter())
        runs = [self.session.run(tensor) for tensor in tensors]
        clock.append(time.perf_counter())
        found = self._task.decode([run.found for run in runs], context, thresholds)
        name = name if name is not None else Path(picture).name if isinstance(picture, (str, Path)) else ""
        findings: dict[str, Any] = {self._task.findings: found}
        result = Result(
            input=InputInfo(**describe(name, data, frame), width=width, height=height),
            model=self.info,
            task=self.manifest.task,
            parameters=self._task.parameters(thresholds),
            run=self._run(started, clock, max(run.together for run in runs)),
            **findings,
        )
        return Sighting(result, pixels)

    def _run(self, started: datetime, clock: list[float], batch: int) -> RunInfo:
        begin, ready, inferred = clock
        return RunInfo(
            started=started.isoformat(timespec="milliseconds"),
            read_ms=round((ready - begin) * 1000, 2),
            infer_ms=round((inferred - ready) * 1000, 2),
            total_ms=round((time.perf_counter() - begin) * 1000, 2),
            host=socket.gethostname(),
            buoy=VERSION,
            runtime=self.session.runtime,
            provider=self.session.provider,
            threads=self.session.threads,
            callers=self.session.callers,
            batch=batch,
        )


def describe(name: str, data: bytes | Pixels, frame: FrameInfo | None = None) -> dict[str, Any]:
    """The part of a record's `input` that does not come from decoding."""
    view = memoryview(data) if isinstance(data, bytes) else np.ascontiguousarray(data).data
    known = {"name": name, "size_bytes": view.nbytes, "sha256": hashlib.sha256(view).hexdigest()}
    return known if frame is None else {**known, "frame": frame}


def read_file(path: Path) -> bytes:
    """The bytes of an input file.

    Raises:
        InputError: it is absent, a folder, or may not be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", "check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder", "name the files in it") from None
    except PermissionError:
        raise InputError(f"{path} may not be read", "change its mode or its owner") from None


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(weights: Path, manifest: Manifest) -> None:
    try:
        have = sha256_of(weights)
    except OSError as error:
        url = manifest.weights.url or ""
        remedy = f"download it from {url} into that folder" if url else "put the file there"
        raise WeightsError(f"{weights}: cannot be read: {error.strerror}", remedy) from error
    want = manifest.weights.sha256
    if have != want:
        raise WeightsError(
            f"{weights}: the sha256 is {have[:12]}..., {FILE_NAME} says {want[:12]}...",
            f"get the right file, or, if you changed it on purpose, set weights.sha256 to {have}",
        )
