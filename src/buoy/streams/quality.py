"""What is wrong with a frame: dark, blurred, frozen. Such frames are shown, and are no effort in counts."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from buoy.image import Pixels
from buoy.streams.spec import StreamSpec

__all__ = ["Quality", "mean_grey", "sharpness"]

#: Every so many pixels in both directions are looked at, where a sample says as much as the whole.
_STRIDE = 4
#: Grey levels by which a picture that was merely encoded again may differ. Noise of any sensor is above it.
_SAME = 4


class Quality:
    """The flags of one stream's frames, which come in order.

    Args:
        spec: has the thresholds; 0 switches a flag off.
    """

    def __init__(self, spec: StreamSpec) -> None:
        self._dark_below = spec.dark_below
        self._blurred_below = spec.blurred_below
        self._frozen_after_s = spec.frozen_after_s
        self._still: NDArray[np.int16] | None = None
        self._since_s = 0.0

    @property
    def on(self) -> bool:
        """Whether any flag is looked for, and so the picture needed."""
        return bool(self._dark_below or self._blurred_below or self._frozen_after_s)

    def flags(self, pixels: Pixels, clock_s: float) -> list[str]:
        """What is wrong with the next frame.

        Args:
            pixels: (H, W, 3) uint8, RGB; a picture that was decoded at reduced size is less blurred than in full.
            clock_s: its time in seconds, by any clock that goes on.
        """
        grey = _grey(np.ascontiguousarray(pixels[::_STRIDE, ::_STRIDE]))
        found = []
        if float(grey.mean()) < self._dark_below:
            found.append("dark")
        if self._blurred_below and sharpness(pixels) < self._blurred_below:
            found.append("blurred")
        if self._frozen_after_s and self._stands_still(grey, clock_s):
            found.append("frozen")
        return found

    def _stands_still(self, grey: NDArray[np.uint8], clock_s: float) -> bool:
        """Whether nothing has changed for too long, compared with the first of the pictures that look the same."""
        now = grey.astype(np.int16)
        still = self._still
        if still is None or still.shape != now.shape or int(np.abs(now - still).max()) > _SAME:
            self._still, self._since_s = now, clock_s
        return clock_s - self._since_s >= self._frozen_after_s


def mean_grey(pixels: Pixels) -> float:
    """Brightness, 0-255, as `dark_below` has it: the mean of a sixteenth of the pixels.

    Args:
        pixels: (H, W, 3) uint8, RGB.
    """
    return float(_grey(np.ascontiguousarray(pixels[::_STRIDE, ::_STRIDE])).mean())


def sharpness(pixels: Pixels) -> float:
    """Variance of the Laplacian (3 x 3 kernel 0 1 0, 1 -4 1, 0 1 0) of all grey pixels, as `blurred_below` has it.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.
    """
    edges = cv2.Laplacian(_grey(pixels), cv2.CV_16S)  # up to 4 x 255, so 16 bits hold it exactly
    return float(cv2.meanStdDev(edges)[1][0, 0] ** 2)


def _grey(pixels: Pixels) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
