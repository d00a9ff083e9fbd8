"""Tells whether others used the machine while something was measured, and measures again if they did."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import psutil

__all__ = ["BEARABLE", "Watch", "undisturbed"]

#: Of one core: what others may use, the kernel's own work included, before a measurement is repeated.
BEARABLE = 0.15
_TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class Watch:
    """From its making on, how much of a core others used, or the host kept from us."""

    def __init__(self) -> None:
        self._begin_s, self._busy_s, self._own_s = time.perf_counter(), _busy_s(), _own_s()

    def foreign(self) -> float:
        """As a share of one core."""
        spent_s = time.perf_counter() - self._begin_s
        return max(0.0, (_busy_s() - self._busy_s) - (_own_s() - self._own_s)) / max(spent_s, 1e-3)

    def warning(self, what: str) -> str:
        """What to say of that measurement; empty if it was undisturbed."""
        foreign = self.foreign()
        return f"DISTURBED: others used {foreign:.0%} of a core during {what}" if foreign > BEARABLE else ""


def undisturbed(measure: Callable[[], float], seen: list[float], tries: int = 2) -> float:
    """The value of a measurement during which the machine was ours, or of the calmest of `tries`.

    Args:
        measure: one measurement.
        seen: gets how much others used during the one that counts.
        tries: at the most.
    """
    best: tuple[float, float] | None = None
    for _ in range(tries):
        watch = Watch()
        value = measure()
        foreign = watch.foreign()
        best = (foreign, value) if best is None or foreign < best[0] else best
        if foreign <= BEARABLE:
            break
    assert best
    seen.append(best[0])
    return best[1]


def _busy_s() -> float:
    """All but idle and waiting for discs, steal included; `/proc/stat`, see proc(5)."""
    path = Path("/proc/stat")
    if not path.exists():
        return _own_s()
    ticks = [int(word) for word in path.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) * _TICK_S


def _own_s() -> float:
    """Of this process and everything below it, the ended ones included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = time.process_time() + ended.ru_utime + ended.ru_stime
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        mine += times.user + times.system + times.children_user + times.children_system
    return mine
