"""Results as COCO: `images`, `annotations` with `bbox` as x, y, width, height in pixels and a `score`.

Source: the data format page of cocodataset.org; `score` as in its results format. Category ids are the class ids
plus one, since several readers take 0 as background. Pictures without any object stand in `images`; failed ones, which
COCO has no place for, in `info.failed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from buoy.results import Detection, Failure, ModelInfo, Record, Result

__all__ = ["encode"]


def encode(records: Iterable[Record]) -> Iterator[bytes]:
    """One COCO document, in pieces; annotations are the only part that is held in memory."""
    failed: list[dict[str, str]] = []
    categories: dict[int, dict[str, Any]] = {}
    annotations: list[bytes] = []
    models: list[ModelInfo] = []
    images = 0
    yield b'{"images":['
    for record in records:
        if record.model not in models:
            models.append(record.model)
        if isinstance(record, Failure):
            failed.append({"file_name": record.input.name, "error": record.error.message})
            continue
        images += 1
        yield (b"," if images > 1 else b"") + msgspec.json.encode(_image(images, record))
        for found in record.detections or []:
            categories.setdefault(found.class_id, _category(found))
            annotations.append(msgspec.json.encode(_annotation(len(annotations) + 1, images, found)))
    yield b'],"annotations":[' + b",".join(annotations) + b'],"categories":'
    yield msgspec.json.encode([categories[class_id] for class_id in sorted(categories)])
    yield (
        b',"info":' + msgspec.json.encode({"description": "made by buoy", "models": models, "failed": failed}) + b"}\n"
    )


def _image(number: int, result: Result) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": result.input.name,
        "width": result.input.width,
        "height": result.input.height,
        "sha256": result.input.sha256,
    }


def _category(found: Detection) -> dict[str, Any]:
    taxon = {} if found.taxon is UNSET else {"taxon": found.taxon}
    return {"id": found.class_id + 1, "name": found.label, **taxon}


def _annotation(number: int, image: int, found: Detection) -> dict[str, Any]:
    x1, y1, x2, y2 = found.box
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "id": number,
        "image_id": image,
        "category_id": found.class_id + 1,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": found.score,
    }
