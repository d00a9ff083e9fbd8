"""Running processes and comparing what they took."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from buoy import machine

__all__ = ["Run", "alternate", "baseline", "best_limit", "own_peak_mib", "report", "run"]


class Run(NamedTuple):
    """What one process took."""

    wall_s: float
    peak_mib: float
    #: The baseline's own loop without its start; the wall time for others.
    loop_s: float


def run(command: Sequence[str], env: dict[str, str] | None = None) -> Run:
    """Run a command to its end; raises if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    assert process.stdout
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])} ... ended with {process.returncode}")
    loop = json.loads(output)["loop_s"] if output.startswith(b'{"loop_s"') else wall
    return Run(wall, usage.ru_maxrss / 1024, loop)


def own_peak_mib() -> float:
    """The most resident memory of this process, MiB; `ru_maxrss` has that of whoever started it as well."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def baseline(kind: str, model: Path, pictures: Sequence[Path]) -> Run:
    """Run one of `bench.baselines`."""
    return run([sys.executable, "-m", "bench.baselines", kind, str(model), *map(str, pictures)])


def alternate(rounds: int, **candidates: Callable[[], float]) -> dict[str, list[float]]:
    """Measure the candidates in turn, `rounds` times, after one round that is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, candidate in candidates.items():
            value = candidate()
            if number:
                taken[name].append(value)
    return taken


def best_limit(model: Path, paths: list[Path]) -> str:
    """The callers x threads that is fastest here, out of those that use all cores."""
    cores = machine.cores()
    kinds = [f"{callers}x{cores // callers}" for callers in range(1, cores + 1) if cores % callers == 0]
    kinds.append(f"{cores + 1}x1")
    took = alternate(1, **{kind: (lambda kind=kind: baseline(kind, model, paths).loop_s) for kind in kinds})
    best = min(kinds, key=lambda kind: statistics.median(took[kind]))
    rates = ", ".join(f"{kind} {len(paths) / took[kind][0]:.1f}/s" for kind in kinds)
    print(f"limit is {best}: {rates}", flush=True)
    return best


def report(
    what: str, taken: dict[str, list[float]], ours: str, base: str, *, more_is_better: bool, goal: float, unit: str
) -> None:
    """Print the median of the ratios of pairs, with its spread, and whether it meets the goal."""
    ratios = sorted(
        other / own if more_is_better else own / other for own, other in zip(taken[ours], taken[base], strict=True)
    )
    ratio = statistics.median(ratios)
    met = ratio >= goal if more_is_better else ratio <= goal
    sign = ">=" if more_is_better else "<="
    medians = ", ".join(f"{name} {statistics.median(values):.3g}" for name, values in taken.items())
    print(
        f"{what}: {ratio:.2f} x {base} (spread {ratios[0]:.2f}-{ratios[-1]:.2f}, goal {sign} {goal}:"
        f" {'met' if met else 'MISSED'}) [medians in {unit}: {medians}]",
        flush=True,
    )
