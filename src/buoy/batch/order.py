"""Putting a list of any length into the order of its keys, in bounded memory: sorted runs on the disk, merged."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

__all__ = ["Entry", "in_order"]

#: Entries that are held and sorted at once, and those of a run that are read at once.
_RUN, _PIECE = 100_000, 500


class Entry(NamedTuple):
    """One object as a list names it. Entries sort by their keys, as stores list them, and then by their lines."""

    key: str
    version: str
    #: Where it stands in the list, from 1.
    line: int
    #: `None` where the list does not say it.
    size_bytes: int | None
    etag: str
    modified_s: float | None


def in_order(entries: Iterable[Entry], folder: Path, *, run: int = _RUN) -> Iterator[Entry]:
    """The entries, sorted.

    Args:
        entries: in any order.
        folder: where runs can be written, if there are more entries than one.
        run: how many entries are held at once.
    """
    coming, paths = iter(entries), list[Path]()
    while held := sorted(islice(coming, run)):
        if not paths and len(held) < run:
            return iter(held)
        paths.append(folder / f"run-{len(paths):06d}")
        _write(paths[-1], held)
    return heapq.merge(*(_read(path) for path in paths))


def _write(path: Path, entries: list[Entry]) -> None:
    with path.open("wb") as file:
        for start in range(0, len(entries), _PIECE):
            data = msgspec.msgpack.encode(entries[start : start + _PIECE])
            file.write(len(data).to_bytes(4, "big"))
            file.write(data)


def _read(path: Path) -> Iterator[Entry]:
    decoder = msgspec.msgpack.Decoder(list[Entry])
    with path.open("rb") as file:
        while size := file.read(4):
            yield from decoder.decode(file.read(int.from_bytes(size, "big")))
