"""The progress of a batch run: a bar on a terminal, lines elsewhere, JSON where something reads it."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from buoy.cli.batch_terminal import leave
from buoy.runs import write_note

if TYPE_CHECKING:
    from buoy.batch.manifest import Index
    from buoy.batch.overview import Progress
    from buoy.batch.spec import Spec

__all__ = ["Display", "facts_of", "workers_of"]

_LINE_EVERY_S, _LOG_EVERY_S, _NOTE_EVERY_S = 10.0, 60.0, 1.0
#: The rate is that of so many last seconds.
_WINDOW_S = 300.0


class Display:
    """Shows the progress until it is left: the terminal may go away, the run goes on."""

    def __init__(self, manifest: Index, spec: Spec, place: str, *, as_json: bool, plain: bool = False) -> None:
        self._rows, self._as_json, self._plain = manifest.rows, as_json, plain
        model = {"model": spec.model.name, "maturity": spec.model.maturity}
        self._about = {"place": f"{place}/{spec.run}", "source": spec.source, **model}
        self._run = spec.run
        self._noted_s = float("-inf")
        self._facts: dict[str, Any] = {}
        #: Objects without a result yet, as far as is known.
        self.left = manifest.rows
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
        """The terminal is closed: only the log is left, which is written to seldom."""
        self._left, self._as_json = True, False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, progress: Progress, *, done: bool = False) -> None:
        """Take what is new."""
        now_s = time.monotonic()
        self.left = progress.rows - progress.rows_done
        self._seen.append((now_s, progress.rows_done))
        while self._seen[0][0] < now_s - _WINDOW_S:
            self._seen.popleft()
        self._facts = facts = facts_of(progress, self._rate(), done=done)
        if now_s - self._noted_s >= _NOTE_EVERY_S or done or progress.order.state != "running":
            self._noted_s = now_s
            write_note(self._run, {**self._about, **facts})
        try:
            self._tell(progress, facts, now_s)
        except OSError:  # the terminal has gone, and its signal is on the way
            self._bar = None
            leave(self._run)
            self.leave()

    def conclude(self) -> None:
        """The results are there."""
        write_note(self._run, {**self._about, **self._facts, "state": "done", "eta_s": None})

    def _tell(self, progress: Progress, facts: dict[str, Any], now_s: float) -> None:
        rate = facts["objects_per_s"]
        if self._as_json:
            print(json.dumps({"progress": facts}), flush=True)
        elif self._bar is not None:
            self._bar.update(
                self._task, completed=progress.rows_done, rate=f"{rate:.1f}" if rate else "-", note=_note(progress)
            )
        elif now_s - self._said_s >= (_LOG_EVERY_S if self._left else _LINE_EVERY_S) or not self.left:
            self._said_s = now_s
            eta = facts["eta_s"]
            left = f", {eta['p10']:.0f} to {eta['p90']:.0f} s left" if eta and self.left else ""
            speed = f", {rate:.1f}/s" if rate else ""  # one look tells none
            print(
                f"{progress.rows_done:,} of {progress.rows:,} objects{speed}{left}; {_note(progress)}",
                file=sys.stderr,
                flush=True,
            )
            if self._plain:
                for line in workers_of(progress):
                    print(f"  {line}", file=sys.stderr, flush=True)

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


def facts_of(progress: Progress, rate: float, *, done: bool = False) -> dict[str, Any]:
    """The progress as JSON lines, notes and the page have it."""
    from buoy.batch.beats import vitals_of

    vitals, left_s = vitals_of(progress.beats.values()), progress.left_s
    return {
        "state": "done" if done else progress.order.state,
        "reason": progress.order.reason,
        "objects": progress.rows,
        "done": progress.rows_done,
        "counts": progress.counts,
        "failures_by_class": progress.classes,
        "cells": progress.cells,
        "cells_done": progress.cells_done,
        "objects_per_s": round(rate, 2),
        "left_s": round((progress.rows - progress.rows_done) / rate, 1) if rate else None,
        "eta_s": None if left_s is None else {"p10": round(left_s[0], 1), "p90": round(left_s[1], 1)},
        "worked_s": round(progress.worked_s, 1),
        "paid_s": round(vitals.paid_s, 1),
        "core_hours": round(vitals.core_s / 3600, 4),
        "efficiency": round(min(1.0, progress.worked_s / vitals.paid_s), 3) if vitals.paid_s else None,
        "wasted_percent": round(100 * vitals.wasted / vitals.looked, 2) if vitals.looked else 0.0,
        "retries": dict(vitals.retries),
        "workers": progress.pilots,
        "waits": progress.waits,
    }


def workers_of(progress: Progress) -> list[str]:
    """A line for each worker that lives."""
    lines = []
    for name in progress.pilots:
        if (beat := progress.beats.get(name)) is not None:
            doing = beat["doing"]
            what = f"{doing['done']} of {doing['rows']} of a cell" if doing.get("rows") else "waits"
            pace = beat["done"] / beat["age_s"] if beat["age_s"] else 0.0
            lines.append(
                f"{name}: {what}, {beat['done']:,} objects, {pace:.1f}/s, {beat['wasted']} wasted, "
                f"{beat['retries']} retries, here for {beat['age_s']:.0f} s"
            )
    return lines
