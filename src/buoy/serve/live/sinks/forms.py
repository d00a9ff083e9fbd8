"""The files of a bucket sink: JSON lines as they are in the spool, or a table made of them."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from buoy.errors import JobError, StoreError, UsageError
from buoy.store.local import told
from buoy.streams.spec import StreamSpec

__all__ = ["Made", "check_form", "made"]

#: Tables are made one after the other, however many streams have reached the end of an hour.
_turn = threading.Lock()


class Made(NamedTuple):
    """A file that can be sent."""

    content: BinaryIO
    #: Lines of the part that could not be read, and are not in it.
    unreadable: int


def check_form(form: str) -> None:
    """Refuse a format whose extra is missing.

    Raises:
        UsageError: it is.
    """
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("pyarrow, which writes Parquet, is not installed", "pip install 'buoy[tables]'")


@contextmanager
def made(part: Path, form: str, spec: StreamSpec) -> Iterator[Made]:
    """The file of this format that holds the records of a part. It has no name, so nothing stays of it.

    Raises:
        StoreError: the disk is full, or the process that makes it was ended from outside.
        JobError: the part cannot be made into a table.
    """
    if form == "jsonl":
        with told(part), part.open("rb") as content:
            yield Made(content, 0)
        return
    with told(part.parent), tempfile.TemporaryFile(dir=part.parent) as content:
        with _turn:
            unreadable = _make(part, form, spec, content)
        content.seek(0)
        yield Made(content, unreadable)


def _make(part: Path, form: str, spec: StreamSpec, target: BinaryIO) -> int:
    ended = subprocess.run(
        [sys.executable, "-m", "buoy.serve.live.sinks.tables", form, str(part)],
        input=msgspec.json.encode(spec),
        stdout=target,
        stderr=subprocess.PIPE,
        check=False,
    )
    if ended.returncode in (-signal.SIGKILL, -signal.SIGTERM):
        raise StoreError(f"the process that makes a table of {part} was killed", "is there memory enough?", retry=True)
    last = ended.stderr.strip().rpartition(b"\n")[2]
    if ended.returncode == 0:
        return int(msgspec.json.decode(last)["unreadable"])
    try:
        error = msgspec.json.decode(last)
        raise StoreError(error["message"], error["hint"], retry=error["retry"])
    except msgspec.DecodeError:
        said = last.decode("utf-8", "replace") or f"exit code {ended.returncode}"
        raise JobError(f"no table can be made of {part}: {said}", "this is a fault of buoy: please report it") from None
