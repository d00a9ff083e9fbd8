"""The picture with its findings drawn on it, for people."""

from __future__ import annotations

import cv2
import numpy as np
from msgspec import UNSET

from buoy.errors import UsageError
from buoy.image import Pixels
from buoy.results import Detection, Result

__all__ = ["COLOURS", "draw", "encode"]

#: RGB, far apart from each other and from water: by class, then round again. The page uses the same.
COLOURS = ((255, 196, 0), (255, 92, 92), (64, 224, 208), (255, 128, 240), (160, 255, 96), (255, 160, 64))

_JPEG_QUALITY = 90


def encode(result: Result, pixels: Pixels | None) -> bytes:
    """Draw, and encode as JPEG.

    Raises:
        UsageError: the picture was not kept.
    """
    if pixels is None:
        raise UsageError("drawing needs the picture", "run the engine with keep_pixels=True")
    drawn = cv2.cvtColor(draw(result, pixels), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, "OpenCV encodes any (H, W, 3) uint8 array"
    return data.tobytes()


def draw(result: Result, pixels: Pixels) -> Pixels:
    """A copy of the picture with boxes, labels, scores, and the model's name with its maturity.

    Args:
        result: findings in this picture.
        pixels: (H, W, 3) uint8, RGB; of the picture's own size or a smaller one.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    canvas = pixels.copy()
    unit = max(1, round(min(canvas.shape[:2]) / 480))
    scale = canvas.shape[1] / (result.input.width or canvas.shape[1])
    for found in reversed(result.detections or []):  # the best on top
        _box(canvas, found, unit, scale)
    model = result.model
    _text(canvas, f"{model.name} {model.version} ({model.maturity})", (0, canvas.shape[0]), (255, 255, 255), unit)
    return canvas


def _box(canvas: Pixels, found: Detection, unit: int, scale: float) -> None:
    x1, y1, x2, y2 = (round(side * scale) for side in found.box)
    colour = COLOURS[found.class_id % len(COLOURS)]
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 2 * unit)
    track = "" if found.track_id is UNSET else f"#{found.track_id} "
    _text(canvas, f"{track}{found.label} {found.score:.2f}", (x1, y1), colour, unit)


def _text(canvas: Pixels, text: str, corner: tuple[int, int], colour: tuple[int, int, int], unit: int) -> None:
    """Dark letters on a coloured strip whose lower left corner is `corner`, kept inside the picture."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45 * unit
    plain = text.encode("ascii", "replace").decode()  # OpenCV's built-in fonts have no other letters
    (width, height), below = cv2.getTextSize(plain, font, scale, unit)
    strip = height + below + 4 * unit
    x = int(np.clip(corner[0], 0, max(0, canvas.shape[1] - width - 6 * unit)))
    y = max(corner[1], strip)
    cv2.rectangle(canvas, (x, y - strip), (x + width + 6 * unit, y), colour, cv2.FILLED)
    cv2.putText(canvas, plain, (x + 3 * unit, y - below - unit), font, scale, (0, 24, 40), unit, cv2.LINE_AA)
