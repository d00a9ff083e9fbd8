"""The progress of a run as Prometheus text (exposition format 0.0.4), for a node exporter's text files or a gateway."""

from __future__ import annotations

import math
from collections.abc import Iterable

from buoy.batch.beats import vitals_of
from buoy.batch.overview import Progress

__all__ = ["exposition"]

_STATES = ("running", "paused", "cancelled", "done")


def exposition(run: str, progress: Progress, *, done: bool) -> str:
    """All metrics of a run."""
    vitals = vitals_of(progress.beats.values())
    state = "done" if done else progress.order.state
    alive = set(progress.pilots)
    left = progress.left_s or (float("nan"), float("nan"))
    families: list[tuple[str, str, str, Iterable[tuple[dict[str, str], float]]]] = [
        ("state", "gauge", "1 for the state that the run is in.", [({"state": s}, s == state) for s in _STATES]),
        ("objects", "gauge", "Objects of the run.", [({}, progress.rows)]),
        ("objects_done", "gauge", "Objects by what became of them.",
         [({"status": name}, number) for name, number in progress.counts.items()]),
        ("objects_failed", "gauge", "Failed objects by class of error.",
         [({"class": name}, number) for name, number in progress.classes.items()]),
        ("cells", "gauge", "Cells that are known.", [({}, progress.cells)]),
        ("cells_done", "gauge", "Cells that have ended.", [({}, progress.cells_done)]),
        ("workers", "gauge", "Workers whose heartbeats move.", [({}, len(alive))]),
        ("left_seconds", "gauge", "When it ends, in 8 of 10 cases between these.",
         [({"quantile": "0.1"}, left[0]), ({"quantile": "0.9"}, left[1])]),
        ("worked_seconds", "gauge", "Time that workers spent on cells that ended.", [({}, progress.worked_s)]),
        ("paid_seconds", "gauge", "Time that workers were there.", [({}, vitals.paid_s)]),
        ("core_seconds", "gauge", "The same, times their cores.", [({}, vitals.core_s)]),
        ("elapsed_seconds", "gauge", "Time with at least one worker.", [({}, vitals.elapsed_s)]),
        ("objects_looked_at", "gauge", "Objects that workers have looked at.", [({}, vitals.looked)]),
        ("objects_wasted", "gauge", "Those of them without effect.", [({}, vitals.wasted)]),
        ("ledger_requests", "gauge", "Requests of workers to the ledger.", [({}, vitals.requests)]),
        ("ledger_retries", "gauge", "Those made again, by what the store said.",
         [({"cause": name}, number) for name, number in vitals.retries.items()]),
        ("worker_objects", "gauge", "Objects of each living worker.",
         [({"worker": name}, progress.beats[name]["done"]) for name in sorted(alive & progress.beats.keys())]),
    ]  # fmt: skip
    lines: list[str] = []
    for name, kind, text, samples in families:
        lines += [f"# HELP buoy_batch_{name} {text}", f"# TYPE buoy_batch_{name} {kind}"]
        for labels, value in samples:
            inside = ",".join(f'{key}="{_escaped(word)}"' for key, word in {"run": run, **labels}.items())
            lines.append(f"buoy_batch_{name}{{{inside}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{float(value):.15g}"
