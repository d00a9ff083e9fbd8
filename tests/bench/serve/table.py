"""The figures as tables in markdown: `python -m bench.serve.table FILE.json...`, later files over earlier ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bench.book import Entry

__all__ = ["tables"]


class _File(msgspec.Struct):
    machine: dict[str, Any]
    entries: list[Entry]


def tables(files: Iterable[Path]) -> str:
    """One table with a row for each figure and a column for each candidate, and the machine above it."""
    machine: dict[str, Any] = {}
    entries: dict[tuple[str, str], Entry] = {}
    for path in files:
        read = msgspec.json.decode(path.read_bytes(), type=_File)
        machine = read.machine
        entries |= {(entry.row, entry.who): entry for entry in read.entries}
    rows = list(dict.fromkeys(row for row, _ in entries))
    names = sorted({who for _, who in entries}, key=_order)
    lines = [", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += [f"| | {' | '.join(names)} | goal |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        here = [entries.get((row, name)) for name in names]
        unit = next(entry.unit for entry in here if entry)
        goal = next((_goal(entry) for entry in here if entry and entry.goal), "")
        network, point, what = row.partition(".")
        named = f"{network}: {what}" if point and network.isalpha() else row
        label = f"{named}{f' ({unit})' if unit not in ('', 'x') else ''}"
        lines.append(f"| {label} | {' | '.join(_cell(entry) for entry in here)} | {goal} |")
    return "\n".join(lines)


def _order(name: str) -> tuple[int, str]:
    """Buoy first, then the baselines, then the others."""
    first = ("buoy", "plain", "limit", "starlette")
    return next((at for at, start in enumerate(first) if name.startswith(start)), len(first)), name


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return ""
    text = _short(entry.value)
    return f"{text} ({_short(entry.spread[0])}-{_short(entry.spread[1])})" if entry.spread else text


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _goal(entry: Entry) -> str:
    return f"{entry.goal}: {'met' if entry.met else 'missed'}"


if __name__ == "__main__":
    print(tables(Path(name) for name in sys.argv[1:]))
