"""Streams on disk: those that the operator's file names, and those that were made over the API.

`DIR/streams.json` holds the latter whole or not at all, with mode 0600 since addresses hold passwords.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from buoy.errors import StoreError, UsageError
from buoy.streams.spec import StreamSpec, read_spec

__all__ = ["Kept", "read_file", "write_whole"]


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    spec: StreamSpec
    #: It has ended of itself, as a video does, and is not to begin again.
    ended: bool = False


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    streams: list[_Entry]


class Kept:
    """The streams that were made over the API; without a folder, none is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self) -> list[tuple[StreamSpec, bool]]:
        """Each with whether it has ended.

        Raises:
            UsageError: the file cannot be read.
        """
        if self.folder is None or not self._path.exists():
            return []
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_Document)
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{self._path}: {error}", "mend the file, or move it away to begin without it") from error
        return [(entry.spec, entry.ended) for entry in found.streams]

    def save(self, streams: Sequence[tuple[StreamSpec, bool]]) -> None:
        """Write all of them.

        Raises:
            StoreError: it cannot be written.
        """
        if self.folder is None:
            return
        document = _Document(streams=[_Entry(spec=spec, ended=ended) for spec, ended in streams])
        write_whole(self._path, msgspec.json.format(msgspec.json.encode(document)))

    @property
    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / "streams.json"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, readable by its owner alone.

    Raises:
        StoreError: it cannot be written.
    """
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except OSError as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise StoreError(f"{path}: {error.strerror or error}", "see to --data", retry=True) from error


def read_file(path: Path) -> list[StreamSpec]:
    """The operator's file: a YAML list of streams.

    Raises:
        UsageError: it cannot be read, or a stream in it is wrong; the message says which.
    """
    import yaml

    try:
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}", "give a YAML list of streams") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError(f"{path}: this is no list of streams", "begin each with `- name: ...`, `  source: ...`")
    specs = []
    for number, each in enumerate(found, 1):
        try:
            specs.append(read_spec(each))
        except UsageError as error:
            raise UsageError(f"{path}, stream {number}: {error.message}", error.hint) from None
    names = [spec.name for spec in specs]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(f"{path}: two streams are called {twice}", "give each a name of its own")
    return specs
