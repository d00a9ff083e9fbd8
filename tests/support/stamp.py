"""A number and a clock in the first rows of a picture, readable after JPEG, H.264 and scaling.

96 cells from left to right, 16 rows high, light for 1: 32 bits of number, 48 of milliseconds since 1970, 16 of CRC.
`support/rtsp_server.py` writes the same without numpy.
"""

from __future__ import annotations

import binascii
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS, ROWS = 96, 16


class Stamp(NamedTuple):
    number: int
    #: Seconds since 1970, to the millisecond.
    clock_s: float


def stamp(pixels: NDArray[np.uint8], number: int, clock_s: float | None = None) -> None:
    """Write into `pixels`, (H, W, 3) uint8; by default the present time."""
    clock_ms = int((time.time() if clock_s is None else clock_s) * 1000)
    data = (number & 0xFFFFFFFF).to_bytes(4, "big") + clock_ms.to_bytes(6, "big")
    data += binascii.crc_hqx(data, 0).to_bytes(2, "big")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    cells = np.arange(pixels.shape[1]) * BITS // pixels.shape[1]
    pixels[:ROWS] = np.where(bits[cells], 240, 16).astype(np.uint8)[None, :, None]


def read_stamp(pixels: NDArray[np.uint8]) -> Stamp | None:
    """What stands in a picture of any size; `None` if there is no stamp, or not a legible one."""
    height, width = pixels.shape[:2]
    row = pixels[min(ROWS // 2, height - 1)].astype(np.float32).mean(axis=1)
    bits = np.array([row[int((i + 0.5) * width / BITS)] for i in range(BITS)]) > 127
    data = np.packbits(bits).tobytes()
    if binascii.crc_hqx(data[:10], 0) != int.from_bytes(data[10:], "big"):
        return None
    return Stamp(int.from_bytes(data[:4], "big"), int.from_bytes(data[4:10], "big") / 1000)
