"""Takes JPEGs out of a `multipart/x-mixed-replace` body as it comes, in bounded memory.

RFC 2046 section 5.1 says what parts look like; cameras differ: the boundary in the header with or without its two
hyphens, `Content-Length` absent or wrong, line ends without a carriage return.
"""

from __future__ import annotations

import re

from buoy.errors import SourceError

__all__ = ["Parts", "boundary_of"]

_PART_BYTES = 16 << 20
_HEADER_BYTES = 16 << 10
_LENGTH = re.compile(rb"^content-length\s*:\s*(\d{1,10})\s*$", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^content-type\s*:\s*([^\s;]+)", re.IGNORECASE | re.MULTILINE)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_BOUNDARY = re.compile(r"boundary\s*=\s*(?:\"([^\"]+)\"|([^\s;]+))", re.IGNORECASE)
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a header names, without hyphens in front; `None` if this is no multipart body."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().lstrip().startswith("multipart/") or not found:
        return None
    name = found[1] or found[2]
    return name.removeprefix("--").encode("latin-1", "replace") or None


class Parts:
    """A parser that is fed pieces of the body and gives the pictures that have become whole."""

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"--" + boundary
        self._data = bytearray()
        #: Up to where the mark was looked for in vain.
        self._seen = 0
        self._inside = False
        self._length: int | None = None
        self._picture = True

    def feed(self, piece: bytes) -> list[bytes]:
        """The pictures that end in this piece of the body.

        Raises:
            SourceError: a part or its header is beyond all bounds.
        """
        self._data += piece
        found: list[bytes] = []
        while self._step(found):
            pass
        if len(self._data) > _PART_BYTES:
            raise SourceError(f"a part of the stream has more than {_PART_BYTES >> 20} MiB", "is this an MJPEG stream?")
        return found

    def _step(self, found: list[bytes]) -> bool:
        """Go one header or one body further; `False` when more bytes are needed."""
        return self._body(found) if self._inside else self._header()

    def _header(self) -> bool:
        start = self._find(self._mark)
        if start < 0:
            # Nothing before a boundary is of use.
            del self._data[: max(0, len(self._data) - len(self._mark) + 1)]
            self._seen = 0
            return False
        end = _HEADER_END.search(self._data, start)
        if not end:
            if len(self._data) - start > _HEADER_BYTES:
                raise SourceError("the header of a part does not end", "is this an MJPEG stream?")
            self._seen = start
            return False
        header = bytes(self._data[start : end.end()])
        length, kind = _LENGTH.search(header), _TYPE.search(header)
        self._length = int(length[1]) if length else None
        self._picture = kind is None or kind[1].lower().startswith(b"image/")
        self._inside = True
        self._cut(end.end())
        return True

    def _body(self, found: list[bytes]) -> bool:
        if self._length is not None:
            if len(self._data) < self._length <= _PART_BYTES:
                return False
            body = bytes(self._data[: self._length])
            if self._length <= _PART_BYTES and (not self._picture or _ends_well(body)):
                self._end(found, body, self._length)
                return True
            self._length = None  # it is wrong: the boundary decides
        at = self._find(self._mark)
        if at >= 0:
            self._end(found, bytes(self._data[:at]), at)
            return True
        if self._data[-4:].rstrip(b"\r\n").endswith(_EOI) and _ends_well(body := bytes(self._data)):
            # Whole already: the boundary may come with the next picture only.
            self._end(found, body, len(self._data))
        return False

    def _end(self, found: list[bytes], body: bytes, size: int) -> None:
        if body[-4:].rstrip(b"\r\n").endswith(_EOI):
            body = body.rstrip(b"\r\n")
        if self._picture and body.strip():
            found.append(body)
        self._inside = False
        self._cut(size)

    def _find(self, mark: bytes) -> int:
        """Where the mark is, without looking twice at the same bytes."""
        at = self._data.find(mark, max(0, self._seen - len(mark)))
        self._seen = len(self._data)
        return at

    def _cut(self, size: int) -> None:
        del self._data[:size]
        self._seen = 0


def _ends_well(data: bytes) -> bool:
    """Whether it is a JPEG up to its end marker (the picture's own, not a thumbnail's in its header), and no more."""
    if not data.startswith(_SOI):
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    end = data.find(_EOI, at)
    return end >= 0 and not data[end + 2 :].strip(b"\r\n\0 ")
