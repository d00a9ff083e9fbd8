"""What both stores do with local files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from buoy.errors import as_buoy_error
from buoy.store import Body

__all__ = ["PIECE_BYTES", "appearing", "reading", "told"]

#: How much is held in memory of whatever is streamed.
PIECE_BYTES = 1 << 20


@contextmanager
def told(where: object) -> Iterator[None]:
    """Turn what the operating system says into a `StoreError` that names the place."""
    try:
        yield
    except OSError as error:
        raise as_buoy_error(error, str(where)) from error


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the name `path` when the block ends well, and vanishes otherwise."""
    with told(path):
        temp = path.with_name(f".buoy-{secrets.token_hex(8)}")
        try:
            with temp.open("xb") as file:
                yield file
            os.replace(temp, path)
        finally:
            with suppress(FileNotFoundError):
                temp.unlink()


@contextmanager
def reading(body: Body) -> Iterator[BinaryIO]:
    """Open what is to be put; a stream stays open, since it is the caller's."""
    if isinstance(body, Path):
        with told(body):
            file = body.open("rb")
        with file:
            yield file
    else:
        yield BytesIO(body) if isinstance(body, bytes) else body
