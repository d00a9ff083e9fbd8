"""Frames that are no effort: dark, blurred, frozen."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from buoy import image
from buoy.streams.quality import Quality, mean_grey, sharpness
from buoy.streams.spec import read_spec
from support.need import samples

Array = NDArray[np.uint8]


def quality(**spec: Any) -> Quality:
    off = {"dark_below": 0, "blurred_below": 0, "frozen_after_s": 0}
    return Quality(read_spec({"name": "camera", "source": "push:", **off, **spec}))


def noise(seed: int, low: int = 60, high: int = 200, shape: tuple[int, int] = (120, 160)) -> Array:
    return np.random.default_rng(seed).integers(low, high, (*shape, 3), np.uint8)


def test_reference_values_of_a_real_frame() -> None:
    pixels = image.decode((samples() / "obsea-fish17" / "fish17_full_hd.jpg").read_bytes())
    assert mean_grey(pixels) == pytest.approx(138.58, rel=0.01)
    assert sharpness(pixels) == pytest.approx(33.94, rel=0.01)
    assert quality(dark_below=137, blurred_below=33).flags(pixels, 0) == []
    assert quality(dark_below=141, blurred_below=35).flags(pixels, 0) == ["dark", "blurred"]


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    pixels = noise(1)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(float)
    wide = np.pad(grey, 1, mode="reflect")
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * grey
    assert sharpness(pixels) == pytest.approx(laplacian.var())
    assert sharpness(cv2.GaussianBlur(pixels, (0, 0), 3)) < sharpness(pixels) / 10


def test_a_picture_that_stands_still_is_frozen_after_a_while() -> None:
    looked, pixels = quality(frozen_after_s=10), noise(1)
    assert [looked.flags(pixels, at) for at in (0, 5, 9.9, 10, 30)] == [[], [], [], ["frozen"], ["frozen"]]
    assert looked.flags(noise(2), 31) == []
    assert [looked.flags(noise(2), at) for at in (32, 40.9, 41)] == [[], [], ["frozen"]]


def test_a_picture_that_was_only_encoded_again_is_frozen_too() -> None:
    looked, pixels = quality(frozen_after_s=10), cv2.GaussianBlur(noise(1, shape=(480, 640)), (0, 0), 5)
    flags = []
    for at, level in enumerate((95, 93, 95, 94)):
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, level])[1]
        flags.append(looked.flags(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8), 4.0 * at))
    assert flags == [[], [], [], ["frozen"]]


def test_one_small_animal_that_moves_is_not_frozen() -> None:
    looked = quality(frozen_after_s=10)
    for at in range(30):
        pixels = np.zeros((480, 640, 3), np.uint8)
        pixels[100:108, 20 * at : 20 * at + 8] = 255
        assert looked.flags(pixels, at) == []


def test_a_slow_change_of_light_is_not_frozen() -> None:
    looked = quality(frozen_after_s=10)
    assert all(looked.flags(np.full((48, 64, 3), 100 + at, np.uint8), at) == [] for at in range(60))


def test_another_resolution_is_another_picture() -> None:
    looked = quality(frozen_after_s=10)
    assert looked.flags(np.full((48, 64, 3), 100, np.uint8), 0) == []
    assert looked.flags(np.full((96, 128, 3), 100, np.uint8), 20) == []


def test_a_threshold_of_nothing_switches_a_flag_off() -> None:
    looked = quality()
    assert not looked.on
    assert all(looked.flags(np.zeros((48, 64, 3), np.uint8), at) == [] for at in (0, 1000))
    assert quality(dark_below=1).flags(np.zeros((1, 1, 3), np.uint8), 0) == ["dark"]
