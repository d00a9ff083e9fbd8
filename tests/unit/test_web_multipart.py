"""Files out of a form, as they come and whatever comes."""

from __future__ import annotations

import contextlib
import itertools
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.errors import InputError
from buoy.web.multipart import Form

KIND = "multipart/form-data; boundary=edge"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


def take(pieces: list[bytes], limit_bytes: int = 1 << 20) -> tuple[list[tuple[str, str, bytes | None]], bool]:
    found: list[tuple[str, str, bytes | None]] = []

    def keep(key: str, name: str, file: IO[bytes] | None) -> None:
        content = None
        if file is not None:
            with file:
                file.seek(0)
                content = file.read()
        found.append((key, name, content))

    form = Form(KIND, limit_bytes, keep)
    try:
        for piece in pieces:
            form.feed(piece)
    finally:
        form.close()
    return found, form.complete


BODY = part("note", b"text") + part("file", b"\x00picture\r\n--edg", "C:\\fakepath\\f\u00efsh.jpg") + b"--edge--\r\n"


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_files_come_out_whole_however_the_body_is_cut_into_pieces(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[begin:end] for begin, end in itertools.pairwise(edges)]
    assert take(pieces) == ([("file", "fïsh.jpg", b"\x00picture\r\n--edg")], True)


def test_a_file_over_the_limit_is_dropped_and_told() -> None:
    body = part("a", b"x" * 101, "a") + part("b", b"x" * 100, "b") + b"--edge--\r\n"
    assert take([body], 100) == ([("a", "a", None), ("b", "b", b"x" * 100)], True)


def test_a_form_that_is_cut_off_is_not_complete() -> None:
    assert take([BODY[:-20]])[1] is False


def test_a_header_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="Maximum header size"):
        take([b"--edge\r\nX-Long: ", *[b"x" * 1000] * 20])


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="])
def test_a_type_without_a_boundary_is_refused(kind: str) -> None:
    with pytest.raises(InputError):
        Form(kind, 10, lambda key, name, file: None)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"--edge", b"\r\n", b"\r\n\r\n", b"--", b":", BODY])))
def test_nothing_but_our_error_comes_of_any_bytes(pieces: list[bytes]) -> None:
    with contextlib.suppress(InputError):
        take(pieces)
