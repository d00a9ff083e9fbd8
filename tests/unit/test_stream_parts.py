"""The parser of MJPEG bodies: every way of cutting a body into pieces gives the same pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.errors import SourceError
from buoy.streams.sources.parts import Parts, boundary_of


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


PICTURES = [picture(seed) for seed in range(4)]
#: A picture with a thumbnail in its header, which has an end marker of its own.
THUMBNAIL = PICTURES[0][:2] + b"\xff\xe1" + (len(PICTURES[1]) + 2).to_bytes(2, "big") + PICTURES[1] + PICTURES[0][2:]


def body(pictures: list[bytes], *, length: bool = True, wrong: int = 0, end: bytes = b"\r\n") -> bytes:
    made = b"before" + end
    for each in pictures:
        said = b"Content-Length: %d%s" % (len(each) + wrong, end) if length else b""
        made += b"--mark" + end + b"Content-Type: image/jpeg" + end + said + end + each + end
    return made + b"--mark" + end


def parse(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, found, at = Parts(b"mark"), [], 0
    for size in [*sizes, len(data)]:
        found += parts.feed(data[at : at + size])
        at += size
    return found


@given(
    st.lists(st.integers(1, 700), max_size=40),
    st.booleans(),
    st.sampled_from([0, 0, -5, 7, 10**9]),
    st.sampled_from([b"\r\n", b"\n"]),
)
def test_however_the_body_comes_the_pictures_are_the_same(
    sizes: list[int], length: bool, wrong: int, end: bytes
) -> None:
    pictures = [*PICTURES, THUMBNAIL]
    assert parse(body(pictures, length=length, wrong=wrong, end=end), sizes) == pictures


def test_a_picture_is_given_as_soon_as_its_last_byte_is_there() -> None:
    for length in (True, False):
        whole = body(PICTURES[:1], length=length)
        end = whole.rindex(b"\xff\xd9") + 2
        parts = Parts(b"mark")
        assert parts.feed(whole[: end - 1]) == []
        assert parts.feed(whole[end - 1 : end]) == PICTURES[:1]


def test_parts_that_are_no_pictures_are_passed_over() -> None:
    text = b"--mark\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello\r\n"
    assert parse(text + body(PICTURES[:1]), []) == PICTURES[:1]


@given(st.binary(max_size=4000), st.lists(st.integers(1, 100), max_size=30))
def test_noise_is_never_a_fault_of_ours(noise: bytes, sizes: list[int]) -> None:
    parse(noise + body(PICTURES[:1]), sizes)


def test_what_has_no_end_is_given_up() -> None:
    with pytest.raises(SourceError, match="header"):
        parse(b"--mark\r\nX: " + bytes(40_000), [1000] * 40)
    with pytest.raises(SourceError, match="16 MiB"):
        parse(b"--mark\r\n\r\n\xff\xd8" + bytes(20 << 20), [1 << 20] * 20)
    parts = Parts(b"mark")
    for _ in range(40):  # nothing is kept of what comes before a boundary
        assert parts.feed(bytes(1 << 20)) == []
    assert len(parts._data) < 100


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=frame", b"frame"),
        ('multipart/x-mixed-replace;boundary="--a b"', b"a b"),
        ("Multipart/X-Mixed-Replace; charset=x; Boundary=--myboundary", b"myboundary"),
        ("image/jpeg", None),
        ("multipart/x-mixed-replace", None),
        ("", None),
    ],
)
def test_boundaries_as_cameras_write_them(header: str, boundary: bytes | None) -> None:
    assert boundary_of(header) == boundary
