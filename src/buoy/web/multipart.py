"""Takes uploaded files out of a form one by one, as they come: never a whole form in memory or on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from buoy.errors import InputError

__all__ = ["IN_MEMORY_BYTES", "Form"]

#: What is larger goes to a temporary file, which has no name and so goes away with its last user.
IN_MEMORY_BYTES = 1 << 20


class Form:
    """A parser of `multipart/form-data` that hands over each file when it is complete.

    Args:
        content_type: the header, which names the boundary.
        limit_bytes: of each file; what exceeds it is read and dropped.
        take: called with the file's field, its name and the file, or `None` in place of one over the limit. The
            file is the callee's to rewind and to close.
        folder: for what is too large for memory; by default the system's temporary folder.

    Raises:
        InputError: the header names no boundary, or one that is too long.
    """

    def __init__(
        self,
        content_type: str,
        limit_bytes: int,
        take: Callable[[str, str, IO[bytes] | None], None],
        folder: Path | None = None,
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InputError("this is no form with files", "send multipart/form-data with a boundary")
        self.complete = False
        self._limit_bytes = limit_bytes
        self._take = take
        self._folder = None if folder is None else str(folder)
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._key = self._name = ""
        self._file: IO[bytes] | None = None
        self._size = 0
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._whole,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except FormParserError as error:
            raise InputError(f"the form cannot be read: {error}", "send a shorter boundary") from error

    def feed(self, piece: bytes) -> None:
        """The next piece of the body.

        Raises:
            InputError: this is no form.
        """
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
        self._key, self._name, self._size = "", "", 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._key = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            # some browsers send a path; only its last part is a name
            name = options[b"filename"].decode("utf-8", "replace").replace("\\", "/")
            self._name = name.rpartition("/")[2]
            self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=self._folder)  # noqa: SIM115

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._file is not None and self._size <= self._limit_bytes:
            self._file.write(data[start:end])

    def _end(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        if self._size > self._limit_bytes:
            file.close()
            self._take(self._key, self._name, None)
        else:
            self._take(self._key, self._name, file)

    def _whole(self) -> None:
        self.complete = True
