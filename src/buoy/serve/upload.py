"""Receives the body of a request: to memory up to a size, then to a file without a name; within limits of time."""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import IO

from starlette.requests import ClientDisconnect, Request

from buoy.errors import BusyError, InputError, UsageError
from buoy.serve.refusals import TooLarge, TooSlow, Unsupported
from buoy.web.multipart import IN_MEMORY_BYTES, Form

__all__ = ["Limits", "Upload", "Uploads", "spooled"]

#: What a body has besides the picture: the head of a form, of tensors.
_MORE_BYTES = 64 << 10
#: Bodies that are parsed as a whole are held in memory: so many of the largest, or more smaller ones.
_LARGEST = 4
#: The fields of a form that may hold the picture: ours, and DEEPaaS's.
_FIELDS = ("file", "files", "data", "image")


@dataclass(frozen=True)
class Limits:
    """What one upload may take."""

    size_bytes: int = 64 << 20
    #: Between two pieces of a body.
    pause_s: float = 10.0
    #: For the whole body; a camera at sea sends 64 MB in this time at 4.3 Mbit/s.
    whole_s: float = 120.0

    def too_large(self) -> TooLarge:
        """The refusal that names the setting."""
        return TooLarge(
            f"the upload is larger than {self.size_bytes / (1 << 20):g} MiB",
            "send a smaller picture, or start the service with a larger --max-upload (or BUOY_MAX_UPLOAD)",
        )


@dataclass
class Upload:
    """A picture that has been received."""

    file: IO[bytes]
    #: The file's name in a form; empty if it has none.
    name: str = ""


async def pieces(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        TooLarge: by its announced or its real size.
        TooSlow: nothing came for too long, or not all of it in time.
        ClientDisconnect: it was cut off.
    """
    announced = request.headers.get("content-length", "")
    # A form is larger than the file in it; the file itself is measured when it comes.
    if announced.isdecimal() and int(announced) > limits.size_bytes + _MORE_BYTES:
        raise limits.too_large()
    end_s, size = time.monotonic() + limits.whole_s, 0
    while True:
        try:
            async with asyncio.timeout(max(0.0, min(limits.pause_s, end_s - time.monotonic()))):
                message = await request.receive()
        except TimeoutError:
            raise TooSlow(
                f"the body did not come in time ({size:,} bytes so far)",
                f"send it without pauses of {limits.pause_s:g} s, and within {limits.whole_s:g} s",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limits.size_bytes + _MORE_BYTES:
            raise limits.too_large()
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


class Uploads:
    """All bodies that are being received: no more than `most` at once."""

    most = 64

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open = 0
        #: Of bodies that are held in memory.
        self.held_bytes = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Room for one body.

        Raises:
            BusyError: too many are being received.
        """
        if self.open >= self.most:
            raise BusyError(f"{self.open} uploads are being received", "try again later: Retry-After says when")
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, for those that are parsed as a whole; its room in memory is given back when the block ends.

        Raises:
            BusyError: too many are being received, or are in memory.
            TooLarge, TooSlow, ClientDisconnect: see `pieces`.
        """
        held_bytes = 0
        try:
            # Grows in place: pieces that are joined at the end are there twice.
            with self.slot(), io.BytesIO() as gathered:
                async for piece in pieces(request, self.limits):
                    self._hold(len(piece))
                    held_bytes += len(piece)
                    gathered.write(piece)
                body = gathered.getvalue()
            yield body
        finally:
            self.held_bytes -= held_bytes

    def _hold(self, size_bytes: int) -> None:
        if self.held_bytes + size_bytes > _LARGEST * (self.limits.size_bytes + _MORE_BYTES):
            raise BusyError(
                f"{self.held_bytes:,} bytes of requests are in memory",
                "try again later: Retry-After says when; /predict holds no large body in memory",
            )
        self.held_bytes += size_bytes

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[Upload]:
        """The picture in the body, raw or in a form; gone when the block ends.

        Raises:
            BusyError: too many are being received.
            Unsupported: neither.
            UsageError: a form without a file, or with several.
            InputError: a form that cannot be read.
            TooLarge, TooSlow, ClientDisconnect: see `pieces`.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        with self.slot():
            if kind == "multipart/form-data":
                upload = await _from_form(request, self.limits)
            elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
                upload = await _raw(request, self.limits)
            else:
                raise Unsupported(
                    f"a body of type {kind[:80]} is neither a picture nor a form with one",
                    "send the picture as multipart/form-data (curl -F file=@x.jpg), "
                    "or raw with its media type (curl -H 'Content-Type: image/jpeg' --data-binary @x.jpg)",
                )
        try:
            yield upload
        finally:
            upload.file.close()


def spooled(picture: bytes) -> IO[bytes]:
    """A picture out of a body, kept as those that are uploaded alone: a large one waits for its turn on disk."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    try:
        file.write(picture)
    except BaseException:
        file.close()
        raise
    return file


async def _raw(request: Request, limits: Limits) -> Upload:
    coming = pieces(request, limits)
    first, second = await anext(coming, b""), await anext(coming, b"")
    if not second and len(first) <= min(IN_MEMORY_BYTES, limits.size_bytes):
        return Upload(io.BytesIO(first))  # which is no copy
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    try:
        file.write(first)
        file.write(second)
        async for piece in coming:
            file.write(piece)
        if file.tell() > limits.size_bytes:
            raise limits.too_large()
    except BaseException:
        file.close()
        raise
    return Upload(file)


async def _from_form(request: Request, limits: Limits) -> Upload:
    found: list[tuple[str, str, IO[bytes] | None]] = []
    form = Form(
        request.headers["content-type"], limits.size_bytes, lambda key, name, file: found.append((key, name, file))
    )
    try:
        async for piece in pieces(request, limits):
            form.feed(piece)
            if len(found) > 1:
                raise UsageError("the form has several files", "send one picture a request")
        if not form.complete:
            raise InputError("the form is cut off: its closing boundary is missing", "send it again")
        if not found:
            raise UsageError("the form has no file", f"send the picture as a file in the field {_FIELDS[0]}")
        key, name, file = found[0]
        if key not in _FIELDS:
            raise UsageError(f"the form's field {key[:40]!r} is not known", f"known: {', '.join(_FIELDS)}")
        if file is None:
            raise limits.too_large()
    except BaseException:
        for _, _, left in found:
            if left is not None:
                left.close()
        raise
    finally:
        form.close()
    return Upload(file, name)
