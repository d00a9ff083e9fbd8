"""What every candidate does with a picture, by the same functions: decode, prepare, run, find, make JSON."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import onnxruntime

from buoy import machine
from buoy.manifest import Manifest
from buoy.tasks import Thresholds, make_task

__all__ = ["PIN", "Work"]

#: In the environment of a candidate: set to pin its allocator, as buoy does.
PIN = "BENCH_PIN"


class Work:
    """A network and the code around it, without a queue, files or HTTP; may be called from several threads.

    Args:
        model: its folder.
        threads: ONNX Runtime's within one run; by default its own choice, as most people leave it.
        pin: the allocator; by default as the environment says.
    """

    def __init__(self, model: str | Path, threads: int | None = None, *, pin: bool | None = None) -> None:
        if os.environ.get(PIN) == "1" if pin is None else pin:
            machine.pin_allocator()
        manifest = Manifest.load(model)
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(Path(model) / manifest.weights.file), options, providers=["CPUExecutionProvider"]
        )
        self._task = make_task(manifest)
        self._thresholds = Thresholds(manifest.output.score, manifest.output.iou)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, data: bytes) -> bytes:
        """The bytes of a picture to the JSON of what was found."""
        tensors, context = self._task.prepare(self._task.read(data))
        values = self._session.run(None, {self._input: tensors[0]})
        return msgspec.json.encode(self._task.decode([{"output": values[0]}], context, self._thresholds))
