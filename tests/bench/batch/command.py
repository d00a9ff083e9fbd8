"""`scripts/bench batch`, and each part of it by name."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.batch.listing import measure as listing
from bench.batch.makespan import makespan
from bench.batch.manifest import measure as manifest
from bench.batch.merging import merging
from bench.batch.resume import resume
from bench.batch.whole import whole
from bench.book import Book, about_machine

__all__ = ["main"]

#: Of what was told on the command line, a folder, and the book.
PARTS: dict[str, Callable[[argparse.Namespace, Path, Book], None]] = {
    "whole": lambda told, folder, book: whole(folder, book, number=told.pictures, rounds=told.rounds),
    "makespan": lambda told, folder, book: makespan(book),
    "merge": lambda told, folder, book: merging(folder, book),
    "resume": lambda told, folder, book: resume(folder, book),
    "manifest": lambda told, folder, book: manifest(told.keys, told.rounds),
    "listing": lambda told, folder, book: listing(rounds=told.rounds),
}


def main(arguments: list[str]) -> None:
    """Measure the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="+", help=f"batch, or batch.PART of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=4000, help="of whole runs")
    parser.add_argument("--keys", type=int, default=10_000_000, help="of the manifest")
    parser.add_argument("--json", type=Path, help="write the figures there")
    told = parser.parse_args(arguments)
    names = [name for part in told.parts for name in _names(parser, part)]
    book = Book()
    book.say(", ".join(f"{key} {value}" for key, value in about_machine().items()))
    for name in names:
        with tempfile.TemporaryDirectory(prefix="buoy-bench-") as folder:
            began_s = time.perf_counter()
            PARTS[name](told, Path(folder), book)
            book.say(f"-- {name} took {time.perf_counter() - began_s:.0f} s")
    if told.json:
        book.write(told.json)


def _names(parser: argparse.ArgumentParser, part: str) -> list[str]:
    if part == "batch":
        return list(PARTS)
    name = part.removeprefix("batch.")
    if name not in PARTS:
        parser.error(f"there is no part {part}")
    return [name]
