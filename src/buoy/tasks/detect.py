"""Object detection: axis-aligned boxes with a class and a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from msgspec import UNSET

from buoy import image
from buoy.errors import ManifestError
from buoy.image import Fit, Pixels, Sample
from buoy.manifest import Manifest
from buoy.results import Detection
from buoy.session import Shape, Tensor, Tensors
from buoy.tasks import Prepared, Thresholds
from buoy.tasks.boxes import corners, suppress

__all__ = ["Detect"]

_FITS = {"letterbox": image.letterbox, "stretch": image.stretch}

#: Candidates that go into suppression at the most, best first (as the exporter's own code has it).
_MOST_CANDIDATES = 30_000


class Detect:
    """Networks with the output layout `yolov8`.

    One output of (1, 4 + classes, anchors) float: centre x, centre y, width, height in pixels of the network's
    input, then one score for each class, 0-1, without objectness. Source: the exported graphs of ultralytics
    8.x detect models.
    """

    findings = "detections"

    def __init__(self, manifest: Manifest) -> None:
        self._name = manifest.name
        self._input = manifest.input
        self._output = manifest.output
        self._labels = manifest.labels
        self._taxa = manifest.taxa

    def check(self, inputs: Shape, outputs: dict[str, Shape]) -> None:
        """Refuse a network of another size, or with another number of classes than the manifest lists."""
        size = self._input.size
        expected = (1, 3, *size) if self._input.layout == "nchw" else (1, *size, 3)
        if inputs != expected:
            raise ManifestError(
                f"{self._name}: the network takes {list(inputs)}, input.size and input.layout say {list(expected)}",
                "set them to what the network was exported with",
            )
        shape = next(iter(outputs.values()))
        if len(shape) != 3 or shape[1] < 5:
            raise ManifestError(
                f"{self._name}: the output {list(shape)} is not of the layout yolov8 (1, 4 + classes, anchors)",
                "export it without built-in suppression (nms=False)",
            )
        if shape[1] - 4 != len(self._labels):
            raise ManifestError(
                f"{self._name}: classes lists {len(self._labels)} labels, the network has {shape[1] - 4}",
                "list every class, in the order of training",
            )

    def read(self, data: bytes) -> Sample:
        """Decode a picture: (H, W, 3) uint8, RGB, upright; reduced if the manifest says so."""
        if self._input.decode == "reduced":
            return image.decode_reduced(data, self._input.size)
        return Sample.full(image.decode(data))

    def prepare(self, sample: Sample) -> Prepared:
        """Fit the picture into the network's input: one float32 tensor, (x / scale - mean) / std."""
        frame, fit = _FITS[self._input.fit](sample.pixels, self._input.size)
        return Prepared([self._tensor(frame)], fit.of(sample))

    def decode(self, outputs: Sequence[Tensors], context: Fit, thresholds: Thresholds) -> list[Detection]:
        """Boxes over the score threshold after suppression, best first, in pixels of the picture."""
        (tensors,) = outputs
        predictions = next(iter(tensors.values()))[0]
        best = predictions[4:].max(axis=0)
        chosen = np.flatnonzero(best > thresholds.score)
        if chosen.size > _MOST_CANDIDATES:
            chosen = chosen[np.argsort(-best[chosen], kind="stable")[:_MOST_CANDIDATES]]
        scores = best[chosen].astype(np.float32)
        class_ids = predictions[4:, chosen].argmax(axis=0)
        boxes = corners(predictions[:4, chosen].T.astype(np.float32))
        kept = suppress(boxes, scores, class_ids, thresholds.iou, self._output.max_detections)
        placed = context.boxes_to_picture(boxes[kept])
        return [
            self._detection(int(class_id), float(score), box.tolist())
            for class_id, score, box in zip(class_ids[kept], scores[kept], placed, strict=True)
        ]

    def parameters(self, thresholds: Thresholds) -> dict[str, Any]:
        """Thresholds and sizes of a run."""
        used = {
            "score": thresholds.score,
            "iou": thresholds.iou,
            "max_detections": self._output.max_detections,
            "size": list(self._input.size),
            "fit": self._input.fit,
        }
        return used if self._input.decode == "full" else {**used, "decode": self._input.decode}

    def _tensor(self, frame: Pixels) -> Tensor:
        # One pass in C for what is the same for every channel. blobFromImage gives (1, 3, H, W).
        tensor: Tensor = cv2.dnn.blobFromImage(frame, 1 / self._input.scale, swapRB=self._input.colour == "bgr")
        if any(self._input.mean) or any(value != 1 for value in self._input.std):
            shape = (1, 3, 1, 1)
            tensor -= np.array(self._input.mean, np.float32).reshape(shape)
            tensor /= np.array(self._input.std, np.float32).reshape(shape)
        return tensor if self._input.layout == "nchw" else np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))

    def _detection(self, class_id: int, score: float, box: list[float]) -> Detection:
        x1, y1, x2, y2 = (round(side, 2) for side in box)
        return Detection(
            label=self._labels[class_id],
            class_id=class_id,
            score=round(min(max(score, 0.0), 1.0), 6),
            box=(x1, y1, x2, y2),
            taxon=self._taxa[class_id] or UNSET,
        )
