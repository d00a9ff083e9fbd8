"""From bytes to an upright RGB picture, and from a picture into the network's frame and back."""

from __future__ import annotations

import io
import os
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from buoy.errors import InputError

__all__ = ["Fit", "Pixels", "Sample", "decode", "decode_reduced", "letterbox", "stretch"]

#: (H, W, 3) uint8, 0-255, RGB, upright.
Pixels = NDArray[np.uint8]

#: Pictures above this are refused before decoding: 200 megapixels is 600 MB of RGB.
MAX_PIXELS = int(os.environ.get("BUOY_MAX_PIXELS") or 200_000_000)

#: Grey that the exporters of YOLO networks pad with.
PAD_GREY = 114

#: What libjpeg can divide each side by, the largest first, and OpenCV's flag for it.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
#: EXIF's tag, and its values by which width and height change places.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
_SOI, _SOS, _EOI = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"

# Our own limit is checked from the header, with a message that says what to do; Pillow's would come first.
Image.MAX_IMAGE_PIXELS = None


class Sample(NamedTuple):
    """A picture to look at, perhaps decoded at a reduced size, and the size that it has in full."""

    pixels: Pixels
    height: int
    width: int

    @classmethod
    def full(cls, pixels: Pixels) -> Sample:
        """A picture at its own size."""
        return cls(pixels, *pixels.shape[:2])


class Fit(NamedTuple):
    """How a picture was placed in the network's input: x_input = x_picture * scale_x + left."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    #: Of the picture, in pixels.
    height: int
    width: int

    def of(self, sample: Sample) -> Fit:
        """The same for the picture at its full size, where this one is of the reduced one."""
        height, width = sample.pixels.shape[:2]
        return self._replace(
            scale_x=self.scale_x * width / sample.width,
            scale_y=self.scale_y * height / sample.height,
            height=sample.height,
            width=sample.width,
        )

    def boxes_to_picture(self, boxes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map boxes back.

        Args:
            boxes: (n, 4) x1, y1, x2, y2 in pixels of the network's input.

        Returns:
            (n, 4) float64, in pixels of the picture, clipped to it.
        """
        moved = (boxes.astype(np.float64) - (self.left, self.top) * 2) / ((self.scale_x, self.scale_y) * 2)
        return np.clip(moved, 0, (self.width, self.height) * 2)


def decode(data: bytes) -> Pixels:
    """Read a picture and turn it upright by its EXIF orientation.

    JPEG, PNG, TIFF and WebP in the modes 1, L, LA, P, RGB, RGBA, CMYK and I;16. Transparency is dropped; of
    16-bit grey the upper eight bits are kept; of several pages or frames the first is read.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: empty, truncated, not a picture, of another format, or with more than `MAX_PIXELS`.
    """
    if not data:
        raise InputError("the file is empty (0 bytes)", "upload it again: the copy was probably interrupted")
    header = _header(data)
    if header.format in ("JPEG", "MPO") and header.mode in ("L", "RGB"):
        return _decode_jpeg(data)
    return _decode_with_pillow(header)


def decode_reduced(data: bytes, size: tuple[int, int]) -> Sample:
    """The same, but a JPEG larger than needed is decoded at a half, a quarter or an eighth of its size.

    libjpeg then leaves out the frequencies that would be lost anyway: 2 to 3 times faster for 12 megapixels. The
    pixels differ a little from those of a full decode that is resized, so a model's results do too.

    Args:
        data: see `decode`.
        size: (height, width) of the network's input, which the picture is never decoded smaller than, in its aspect.

    Raises:
        InputError: see `decode`.
    """
    header = _header(data) if data else None
    if header is None or header.format not in ("JPEG", "MPO") or header.mode not in ("L", "RGB"):
        return Sample.full(decode(data))
    turned = header.getexif().get(_ORIENTATION, 1) in _TURNED
    width, height = (header.height, header.width) if turned else (header.width, header.height)
    scale = min(size[0] / height, size[1] / width)
    divisor = next((each for each in _REDUCED if 1 / each >= scale), None)
    if divisor is None:
        return Sample.full(_decode_jpeg(data))
    # these flags know only BGR; turning round what is left of the picture costs little
    reduced = cv2.cvtColor(_decode_jpeg(data, _REDUCED[divisor]), cv2.COLOR_BGR2RGB)
    return Sample(np.asarray(reduced, np.uint8), height, width)


def letterbox(pixels: Pixels, size: tuple[int, int]) -> tuple[Pixels, Fit]:
    """Scale a picture into `size` keeping its aspect, centred on grey (114).

    Args:
        pixels: (H, W, 3) uint8.
        size: (height, width) of the network's input, px.

    Returns:
        The (height, width, 3) uint8 picture in the same colour order, and how to map back.

    Source: the arithmetic of `LetterBox(auto=False)` of the ultralytics exporter, roundings included: the
    content is placed at round(pad - 0.1), so an odd pixel goes to the right and below. Checked against
    reference values and against the exporter itself in the tests.
    """
    (height, width), (frame_height, frame_width) = pixels.shape[:2], size
    scale = min(frame_height / height, frame_width / width)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    top = round((frame_height - inner_height) / 2 - 0.1)
    left = round((frame_width - inner_width) / 2 - 0.1)
    frame = np.full((frame_height, frame_width, 3), PAD_GREY, np.uint8)
    inner = frame[top : top + inner_height, left : left + inner_width]
    if (inner_height, inner_width) == (height, width):
        inner[:] = pixels
    else:
        inner[:] = cv2.resize(pixels, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    # Each side was rounded by itself, so each axis has a scale of its own: on odd sizes this is worth a pixel.
    return frame, Fit(inner_width / width, inner_height / height, left, top, height, width)


def stretch(pixels: Pixels, size: tuple[int, int]) -> tuple[Pixels, Fit]:
    """Scale a picture to `size` (height, width) without keeping its aspect; see `letterbox`."""
    (height, width), (frame_height, frame_width) = pixels.shape[:2], size
    frame = cv2.resize(pixels, (frame_width, frame_height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(frame, np.uint8), Fit(frame_width / width, frame_height / height, 0, 0, height, width)


def _header(data: bytes) -> Image.Image:
    """Open without decoding, and refuse by what the header says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata that does not concern the pixels
            header = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:  # Pillow's plugins raise many kinds for broken headers
        kind = "starts like text" if data[:64].isascii() else "is not a known picture format, or its header is broken"
        raise InputError(
            f"not a readable picture: the file {kind} ({len(data):,} bytes)",
            "send JPEG, PNG, TIFF or WebP",
        ) from error
    if header.width * header.height > MAX_PIXELS:
        raise InputError(
            f"the header announces {header.width} x {header.height} pixels, "
            f"{header.width * header.height / 1e6:,.0f} megapixels; the limit is {MAX_PIXELS / 1e6:,.0f}",
            "cut it into tiles, or raise BUOY_MAX_PIXELS",
        )
    return header


def _decode_jpeg(data: bytes, flags: int = cv2.IMREAD_COLOR_RGB) -> Pixels:
    # libjpeg fills what is missing with grey and says nothing, so the end marker is looked for. After the last
    # start-of-scan it can only be the picture's own: inside compressed data 0xFF is always followed by 0x00.
    if data.rfind(_EOI) < data.rfind(_SOS):
        raise _truncated(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # applies EXIF orientation
    if pixels is None:
        raise InputError("the JPEG data cannot be decoded", "the file is damaged: upload it again")
    return np.asarray(pixels, np.uint8)


def _decode_with_pillow(header: Image.Image) -> Pixels:
    try:
        header.load()
        upright = ImageOps.exif_transpose(header)
        if upright.mode.startswith("I;16"):
            grey = (np.asarray(upright) >> 8).astype(np.uint8)
            return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
        if upright.mode in ("I", "F"):
            raise InputError(
                f"pictures of mode {upright.mode} (32 bits a pixel) have no fixed range",
                "convert it to 8 or 16 bits",
            )
        return np.array(upright.convert("RGB"))
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # truncated or damaged data comes as OSError, SyntaxError, struct.error, ValueError
        raise InputError(
            f"the {header.format} data is truncated or damaged: {error}",
            "the copy was probably interrupted: upload it again",
        ) from error


def _truncated(data: bytes) -> InputError:
    return InputError(
        f"the JPEG is truncated: it has no end marker ({len(data):,} bytes)",
        "the copy was probably interrupted: upload it again",
    )
