"""The progress of a batch run: a bar on a terminal, lines elsewhere, JSON where something reads it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from buoy.batch.manifest import Index
    from buoy.batch.overview import Progress

__all__ = ["Display"]

_LINE_EVERY_S = 10.0
#: The rate is that of so many last seconds.
_WINDOW_S = 300.0


class Display:
    """Shows the progress until it is left: the terminal may go away, the run goes on."""

    def __init__(self, manifest: Index, *, as_json: bool, plain: bool = False) -> None:
        self._rows, self._as_json = manifest.rows, as_json
        self._seen: deque[tuple[float, int]] = deque()
        self._said_s = float("-inf")
        self._left = False
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr.isatty() and not as_json and not plain:
            self._bar = _bar()
            self._task = self._bar.add_task("", total=self._rows, rate="-", note="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None and not self._left:
            self._bar.stop()

    def leave(self) -> None:
        """Say nothing more: the terminal is closed."""
        self._left = True
        if self._bar is not None:
            self._bar.stop()
        void = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(void, number)

    def show(self, progress: Progress) -> None:
        """Take what is new."""
        if self._left:
            return
        now_s = time.monotonic()
        self._seen.append((now_s, progress.rows_done))
        while self._seen[0][0] < now_s - _WINDOW_S:
            self._seen.popleft()
        rate = self._rate()
        left_s = (progress.rows - progress.rows_done) / rate if rate else None
        if self._as_json:
            print(json.dumps({"progress": _facts(progress, rate, left_s)}), flush=True)
        elif self._bar is not None:
            self._bar.update(
                self._task, completed=progress.rows_done, rate=f"{rate:.1f}" if rate else "-", note=_note(progress)
            )
        elif now_s - self._said_s >= _LINE_EVERY_S or progress.rows_done == progress.rows:
            self._said_s = now_s
            eta = f", {left_s:.0f} s left" if left_s else ""
            print(
                f"{progress.rows_done:,} of {progress.rows:,} objects, {rate:.1f}/s{eta}; {_note(progress)}",
                file=sys.stderr,
                flush=True,
            )

    def _rate(self) -> float:
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}/s"), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))


def _note(progress: Progress) -> str:
    bad = [f"{number} {name}" for name, number in progress.classes.items()]
    bad += [f"{progress.counts[name]} {name}" for name in ("changed", "deleted") if name in progress.counts]
    state = "" if progress.order.state == "running" else f", {progress.order.state}"
    parts = [f"{len(progress.pilots)} workers{state}", ", ".join(bad), progress.waits]
    return "; ".join(part for part in parts if part)


def _facts(progress: Progress, rate: float, left_s: float | None) -> dict[str, Any]:
    return {
        "state": progress.order.state,
        "reason": progress.order.reason,
        "objects": progress.rows,
        "done": progress.rows_done,
        "counts": progress.counts,
        "failures_by_class": progress.classes,
        "cells": progress.cells,
        "cells_done": progress.cells_done,
        "objects_per_s": round(rate, 2),
        "left_s": None if left_s is None else round(left_s, 1),
        "worked_s": round(progress.worked_s, 1),
        "workers": progress.pilots,
        "waits": progress.waits,
    }
