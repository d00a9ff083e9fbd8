"""What was measured: printed as it comes, kept for the table and as JSON."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
from msgspec import Struct

from bench.quiet import BEARABLE, undisturbed
from buoy import machine

__all__ = ["Book", "Entry", "about_machine", "alternate", "quantile"]


class Entry(Struct, kw_only=True):
    """One figure."""

    #: As `detector.peak`: row of the table.
    row: str
    #: Whose figure: column of the table.
    who: str
    value: float
    unit: str
    #: Least and greatest of the rounds.
    spread: tuple[float, float] | None = None
    #: As `>= 1.2`; empty where there is none.
    goal: str = ""
    met: bool | None = None
    note: str = ""


class Book:
    """Takes entries and prints them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(
        self, row: str, who: str, value: float, unit: str = "", *, goal: str = "", rounds: Sequence[float] = (),
        note: str = "",
    ) -> None:  # fmt: skip
        """One more; `rounds` are the single values of which `value` is the median."""
        met = None
        if goal:
            sign, limit = goal.split()[:2]
            met = value >= float(limit) if sign == ">=" else value <= float(limit)
        spread = (min(rounds), max(rounds)) if rounds else None
        entry = Entry(row=row, who=who, value=value, unit=unit, spread=spread, goal=goal, met=met, note=note)
        self.entries.append(entry)
        text = f"{row}: {who} {value:.4g}{f' {unit}' if unit else ''}"
        text += f" (spread {spread[0]:.4g}-{spread[1]:.4g})" if spread else ""
        text += f" [goal {goal}: {'met' if met else 'MISSED'}]" if goal else ""
        print(text + (f"; {note}" if note else ""), flush=True)

    def say(self, text: str) -> None:
        """Something that is no figure."""
        print(text, flush=True)

    def ratios(
        self, row: str, rates: dict[str, list[float]], base: str, goals: dict[str, str], *, label: str = ""
    ) -> None:
        """For every candidate the median of its ratios to `base` in the same round, with their spread."""
        for name, values in rates.items():
            if name != base:
                pairs = [own / other for own, other in zip(values, rates[base], strict=True)]
                note = f"over {label or base}"
                self.add(row, name, statistics.median(pairs), "x", goal=goals.get(name, ""), rounds=pairs, note=note)

    def write(self, path: Path) -> None:
        """As JSON, together with the machine."""
        path.write_bytes(
            msgspec.json.format(msgspec.json.encode({"machine": about_machine(), "entries": self.entries}), indent=1)
        )


def about_machine() -> dict[str, Any]:
    """Where this was measured."""
    models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "architecture": platform.machine(),
        "cores": machine.cores(),
        "memory_gib": round(machine.memory_bytes() / (1 << 30), 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def alternate(
    rounds: int, candidates: dict[str, Callable[[], float]], book: Book | None = None
) -> dict[str, list[float]]:
    """Measure the candidates in turn, `rounds` times, after one round that is thrown away.

    What was measured while others used the machine is measured again; `book` is told where that did not help.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    foreign: list[float] = []
    for number in range(rounds + 1):
        # every other round backwards, so that none always comes after the same
        for name in list(candidates) if number % 2 else list(reversed(candidates)):
            if number:
                taken[name].append(undisturbed(candidates[name], foreign))
            else:
                candidates[name]()
    if book and max(foreign) > BEARABLE:
        bad = sum(each > BEARABLE for each in foreign)
        book.say(f"DISTURBED: others used up to {max(foreign):.0%} of a core in {bad} of {len(foreign)} measurements")
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values, the one that `share` of them do not exceed; NaN for none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")
