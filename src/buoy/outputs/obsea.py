"""The compact list that the fish detector example of OSCAR writes, for those who read that already.

A bare JSON list of `taxa`, `confidence` (3 decimals) and `bounding_box_xyxy`, x1, y1, x2, y2 as fractions of the
picture's sides (3 decimals, which is up to one pixel on a full-HD picture; the full record has pixels).
Source: grycap/oscar, examples/fish-detector.
"""

from __future__ import annotations

import json
from typing import Any

from buoy.results import Result

__all__ = ["encode", "listing"]


def encode(result: Result) -> bytes:
    """The list as UTF-8 JSON."""
    return json.dumps(listing(result), ensure_ascii=False).encode()


def listing(result: Result) -> list[dict[str, Any]]:
    """The list as data."""
    sides = (result.input.width or 1, result.input.height or 1) * 2
    return [
        {
            "taxa": found.label,
            "confidence": round(found.score, 3),
            "bounding_box_xyxy": [round(place / side, 3) for place, side in zip(found.box, sides, strict=True)],
        }
        for found in result.detections or []
    ]
