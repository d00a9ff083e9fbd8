"""`scripts/bench serve`, and each part of it by name."""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.book import Book, about_machine
from bench.pictures import MODEL, scenes
from bench.serve.candidates import BUOY
from bench.serve.large import large
from bench.serve.latency import batching, latency
from bench.serve.live import live
from bench.serve.networks import small_model
from bench.serve.others import others
from bench.serve.overload import overload
from bench.serve.peak import peak
from bench.serve.setting import Setting
from bench.serve.soak import soak
from bench.serve.start import memory, start

__all__ = ["main"]

PARTS: dict[str, Callable[[Setting, Book], None]] = {
    "start": start, "memory": memory, "peak": peak, "overload": overload, "latency": latency, "batching": batching,
    "large": large, "live": live, "soak": soak,
}  # fmt: skip
#: Only when named: they take long.
APART = ("soak",)


def main(arguments: list[str]) -> None:
    """Measure the parts that are named, or all that fit into twelve minutes."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="+", help=f"serve, or serve.PART of: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of one candidate")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the soak")
    parser.add_argument("--others", action="store_true", help="LitServe and DEEPaaS as well")
    parser.add_argument("--options", default="", help="more of the command line of buoy serve, in quotes")
    parser.add_argument("--json", type=Path, help="write the figures there")
    told = parser.parse_args(arguments)
    names = [name for part in told.parts for name in _names(parser, part)]
    options, book = shlex.split(told.options), Book()
    buoy = replace(BUOY, command=lambda model, port: [*BUOY.command(model, port), *options])
    book.say(", ".join(f"{key} {value}" for key, value in about_machine().items()))
    book.say("allocator: pinned (mmap and trim thresholds 1 GiB, one arena) in buoy, limit, plain and the others;"
             " glibc's default where it says so")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="buoy-bench-") as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # callers x threads are measured anew
        networks = {"detector": MODEL, "small": small_model(folder)}
        setting = Setting(folder, networks, scenes(folder / "scenes"), told.rounds, told.seconds, told.minutes, buoy)
        setting.others = others(folder) if told.others else []
        for name in names:
            began = time.perf_counter()
            PARTS[name](setting, book)
            book.say(f"-- {name} took {time.perf_counter() - began:.0f} s")
    if told.json:
        book.write(told.json)


def _names(parser: argparse.ArgumentParser, part: str) -> list[str]:
    if part == "serve":
        return [name for name in PARTS if name not in APART]
    name = part.removeprefix("serve.")
    if name not in PARTS:
        parser.error(f"there is no part {part}")
    return [name]
