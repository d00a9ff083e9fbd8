import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from buoy import image
from buoy.errors import InputError
from buoy.image import decode, letterbox, stretch


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def ramp(mode: str, size: tuple[int, int] = (40, 24)) -> Image.Image:
    grey = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    return Image.fromarray(grey).convert(mode)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"),
        ("1", "TIFF"), ("L", "TIFF"), ("P", "TIFF"), ("RGB", "TIFF"), ("RGBA", "TIFF"), ("CMYK", "TIFF"),
        ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGBA", "WEBP"),
    ],
)  # fmt: skip
def test_every_mode_becomes_rgb_of_the_same_picture(mode: str, form: str) -> None:
    pixels = decode(encoded(ramp(mode), form))
    assert pixels.shape == (24, 40, 3)
    assert pixels.dtype == np.uint8
    expected = np.asarray(ramp(mode).convert("RGB"), int)
    lossy = form in ("JPEG", "WEBP")
    assert np.abs(pixels.astype(int) - expected).max() <= (16 if lossy else 0)


def test_sixteen_bit_grey_keeps_the_upper_eight_bits() -> None:
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    for form in ("PNG", "TIFF"):
        pixels = decode(encoded(Image.fromarray(deep), form))
        assert (pixels[:, :, 0] == deep >> 8).all()
        assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


def test_sixteen_bit_colour_png_is_read() -> None:
    deep = np.full((8, 8, 3), 40_000, np.uint16)
    done, data = cv2.imencode(".png", deep)
    assert done
    assert abs(int(decode(data.tobytes())[0, 0, 0]) - (40_000 >> 8)) <= 1


def test_thirty_two_bit_pictures_are_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match="8 or 16 bits"):
        decode(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(form: str, orientation: int) -> None:
    picture = Image.new("RGB", (32, 16), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 8, 8))  # red in the stored upper left
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(picture, form, exif=exif))
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert pixels.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))
    red = {place: pixels[place].tolist()[0] > 180 for place in ((0, 0), (0, -1), (-1, -1), (-1, 0))}
    assert red == {place: place == corners[orientation] for place in red}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("size", "divisor"), [((640, 640), 2), ((224, 224), 8), ((2000, 2000), 1)])
def test_a_reduced_picture_is_the_same_one_smaller(size: tuple[int, int], divisor: int, orientation: int) -> None:
    rng = np.random.default_rng(3)
    smooth = cv2.resize(rng.integers(0, 255, (18, 32, 3), np.uint8), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(smooth).save(out, "JPEG", quality=95, exif=exif)
    full, sample = image.decode(out.getvalue()), image.decode_reduced(out.getvalue(), size)
    height, width = full.shape[:2]
    assert (sample.height, sample.width) == (height, width)
    assert sample.pixels.shape[:2] == (height // divisor, width // divisor)
    wanted = cv2.resize(full, (width // divisor, height // divisor), interpolation=cv2.INTER_AREA)
    assert np.abs(wanted.astype(int) - sample.pixels).mean() < 2


def test_boxes_of_a_reduced_picture_are_in_pixels_of_the_full_one() -> None:
    sample = image.Sample(np.zeros((540, 960, 3), np.uint8), 1080, 1920)
    _, fit = image.letterbox(sample.pixels, (640, 640))
    inside = np.array([[0, 140, 640, 500], [320, 320, 640, 500]], np.float32)
    assert fit.of(sample).boxes_to_picture(inside).tolist() == [[0, 0, 1920, 1080], [960, 540, 1920, 1080]]


def test_what_is_no_jpeg_is_read_in_full() -> None:
    out = io.BytesIO()
    Image.new("RGB", (400, 300), (1, 2, 3)).save(out, "PNG")
    assert image.decode_reduced(out.getvalue(), (64, 64)).pixels.shape == (300, 400, 3)
    with pytest.raises(InputError, match="0 bytes"):
        image.decode_reduced(b"", (64, 64))


def test_colours_are_rgb() -> None:
    for form in ("JPEG", "PNG"):
        assert decode(encoded(Image.new("RGB", (16, 16), (250, 10, 10)), form))[8, 8, 0] > 200


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_pictures_are_refused(form: str, part: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    assert decode(data).shape == (200, 300, 3)
    with pytest.raises(InputError, match=r"truncated|readable"):
        decode(data[: int(len(data) * part)])


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    thumbnail = encoded(Image.new("RGB", (32, 32), "green"), "JPEG")
    noise = np.random.default_rng(1).integers(0, 255, (100, 100, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    assert decode(with_thumbnail).shape == (100, 100, 3)
    with pytest.raises(InputError, match="truncated"):
        decode(with_thumbnail[:-500])


def test_an_empty_file_and_text_and_another_format_are_told_apart() -> None:
    with pytest.raises(InputError, match="empty"):
        decode(b"")
    with pytest.raises(InputError, match="starts like text"):
        decode(b"hello, I am a note\n")
    with pytest.raises(InputError, match="not a known picture format"):
        decode(encoded(ramp("L"), "GIF"))


def test_a_giant_header_is_refused_before_decoding() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match=r"60000 x 60000 pixels, 3,600 megapixels; the limit is 200"):
        decode(data)


@pytest.mark.parametrize(
    ("picture", "frame", "content", "left", "top"),
    [
        ((1080, 1920), (640, 640), (360, 640), 0, 140),
        ((1080, 1920), (1920, 1920), (1080, 1920), 0, 420),
        ((1080, 1920), (1088, 1920), (1080, 1920), 0, 4),
        ((480, 640), (640, 640), (480, 640), 0, 80),
        ((640, 480), (640, 640), (640, 480), 80, 0),
    ],
)
def test_letterbox_has_the_reference_values(
    picture: tuple[int, int], frame: tuple[int, int], content: tuple[int, int], left: int, top: int
) -> None:
    framed, fit = letterbox(np.full((*picture, 3), 7, np.uint8), frame)
    assert framed.shape == (*frame, 3)
    assert (fit.left, fit.top) == (left, top)
    assert fit.scale_x == pytest.approx(content[1] / picture[1])
    inside = framed[top : top + content[0], left : left + content[1]]
    assert (inside == 7).all()
    assert (framed == image.PAD_GREY).sum() == framed.size - inside.size


@pytest.mark.parametrize("fit_into", [letterbox, stretch])
@pytest.mark.parametrize("size", [(1080, 1920), (37, 91), (500, 3), (640, 640)])
def test_fitting_maps_corners_back(fit_into: object, size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    _, fit = fit_into(pixels, (320, 416))  # type: ignore[operator]
    height, width = size
    corners = [fit.left, fit.top, fit.left + width * fit.scale_x, fit.top + height * fit.scale_y]
    assert fit.boxes_to_picture(np.array([corners], np.float32))[0] == pytest.approx([0, 0, width, height], abs=0.01)
    beyond = fit.boxes_to_picture(np.array([[-50, -50, 900, 900]], np.float32))
    assert beyond.tolist() == [[0, 0, width, height]]
