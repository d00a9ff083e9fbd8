"""Arithmetic on axis-aligned boxes. All are (n, 4) arrays of x1, y1, x2, y2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["corners", "iou", "suppress"]

Floats = NDArray[np.floating[Any]]


def corners(boxes: Floats) -> Floats:
    """(n, 4) centre x, centre y, width, height to x1, y1, x2, y2."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def iou(box: Floats, others: Floats) -> Floats:
    """Intersection over union of one box (4,) with others (n, 4): (n,), 0-1; 0 for boxes without area."""
    left_top = np.maximum(box[:2], others[:, :2])
    right_bottom = np.minimum(box[2:], others[:, 2:])
    overlap: Floats = np.prod(np.clip(right_bottom - left_top, 0, None), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - overlap
    ratio: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ratio


def suppress(
    boxes: Floats, scores: Floats, class_ids: NDArray[np.integer[Any]], threshold: float, most: int
) -> NDArray[np.intp]:
    """Non-maximum suppression within each class: of boxes overlapping by more than `threshold`, the best stays.

    Args:
        boxes: (n, 4) float.
        scores: (n,) float.
        class_ids: (n,) integer.
        threshold: IoU, 0-1; a pair of exactly this value both stay.
        most: how many to keep at the most, over all classes.

    Returns:
        Indices of the kept boxes, best score first; equal scores in the order they came.
    """
    order = np.argsort(-scores, kind="stable")
    # Boxes of different classes are moved apart, so that one pass serves all classes.
    apart = (boxes.max(initial=0) - boxes.min(initial=0) + 1) * class_ids
    moved = boxes + apart[:, None].astype(boxes.dtype)
    kept: list[int] = []
    while order.size and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[iou(moved[best], moved[order]) <= threshold]
    return np.array(kept, np.intp)
