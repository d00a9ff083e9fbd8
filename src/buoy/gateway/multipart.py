"""Takes uploaded files out of a form one by one, as they come: never a whole form in memory or on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from buoy.errors import InputError

__all__ = ["Upload"]

_IN_MEMORY_BYTES = 1 << 20


class Upload:
    """A parser of `multipart/form-data` that hands over each file when it is complete.

    Args:
        content_type: the header, which names the boundary.
        limit_bytes: of each file; what exceeds it is read and dropped.
        folder: for what is too large for memory.
        take: called with name and file, or with `None` in place of a file over the limit.
    """

    def __init__(
        self, content_type: str, limit_bytes: int, folder: Path, take: Callable[[str, IO[bytes] | None], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise InputError("this is no form with files", "send multipart/form-data")
        self._limit_bytes = limit_bytes
        self._folder = folder
        self._take = take
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._name = ""
        self._file: IO[bytes] | None = None
        self._size = 0
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        """The next piece of the body."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InputError(f"the form cannot be read: {error}", "send it again") from error

    def close(self) -> None:
        """The body is over; a file that was cut off is dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._headers, self._field, self._value = {}, b"", b""
        self._name, self._size = "", 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"filename" in options:
            # some browsers send a path; only its last part is a name
            name = options[b"filename"].decode("utf-8", "replace").replace("\\", "/")
            self._name = name.rpartition("/")[2]
            self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(self._folder))  # noqa: SIM115

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._file is not None and self._size <= self._limit_bytes:
            self._file.write(data[start:end])

    def _end(self) -> None:
        if self._file is None:
            return
        with self._file as file:
            self._file = None
            file.seek(0)
            self._take(self._name, file if self._size <= self._limit_bytes else None)
