"""More pictures than can be looked at, at fixed times: who is answered, how late, and what the others are told."""

from __future__ import annotations

import statistics

from bench.book import Book, alternate, quantile
from bench.quiet import Watch
from bench.serve.candidates import STARLETTE, Kind
from bench.serve.load import Seen
from bench.serve.peak import CLIENTS
from bench.serve.setting import Setting

__all__ = ["overload"]

_PATIENCE_S = 10.0


def overload(setting: Setting, book: Book) -> None:
    """The detector at 1.75 and 10 times its own peak; the others at 1.75 times theirs."""
    _one(setting, book, setting.buoy, (1.75, 10.0))
    for kind in (STARLETTE, *setting.others):
        _one(setting, book, kind, (1.75,))


def _one(setting: Setting, book: Book, kind: Kind, times: tuple[float, ...]) -> None:
    with kind.serve(setting.networks["detector"], setting.folder) as service:
        service.until_answered(setting.pictures[0].read_bytes())
        peak = alternate(3, {"own": lambda: service.load(setting.pictures, 3.0, clients=CLIENTS).rate}, book)
        own = statistics.median(peak["own"])
        book.add("detector.own peak", kind.name, own, "pictures/s", note="closed loop, before the overload")
        for factor in times:
            # the 10 s for which clients wait must be a part of what is measured, not all of it
            seconds = 20.0 if factor < 5 else 12.0
            watch = Watch()
            seen = service.load(
                setting.pictures, seconds, rate=own * factor, patience_s=_PATIENCE_S, next_patience_s=60.0
            )
            if warning := watch.warning(f"overload {factor:g} x of {kind.name}"):
                book.say(warning)
            _tell(book, kind, factor, own, seconds, seen)


def _tell(book: Book, kind: Kind, factor: float, own: float, seconds: float, seen: Seen) -> None:
    row, ours = f"overload {factor:g} x", kind.name == "buoy"

    def add(what: str, value: float, unit: str, goal: str = "", note: str = "") -> None:
        book.add(f"{row}, {what}", kind.name, value, unit, goal=goal if ours else "", note=note)

    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses.items()))
    late = f"sent late by p50 {quantile(seen.late_ms, 0.5):.1f}, p99 {quantile(seen.late_ms, 0.99):.1f} ms"
    answered = seen.statuses.get("200", 0)
    share = answered / (own * seconds)
    add("answered of what its peak allows", share, "", ">= 0.95" if factor < 5 else ">= 0.85",
        f"{own * factor:.0f}/s for {seconds:g} s, {statuses}; generator {seen.own_cpu:.0%} of a core, {late},"
        f" {seen.connections} connections")  # fmt: skip
    add("answered within 10 s", answered / seen.sent, "of all sent")
    add("p50 of the answered", quantile(seen.due_ms, 0.5) / 1000, "s", note="from when it was due")
    add("p99 of the answered", quantile(seen.due_ms, 0.99) / 1000, "s", "<= 0.5" if factor < 5 else "",
        f"from when it was due; {quantile(seen.begun_ms, 0.99) / 1000:.3f} s from its first byte")  # fmt: skip
    if seen.refused_ms:
        first = seen.refused_from_first_ms
        add("refused, p50", quantile(seen.refused_ms, 0.5), "ms", "<= 10",
            f"429, last byte sent to refusal; from its first byte {quantile(first, 0.5):.1f}")  # fmt: skip
        add("refused, p99", quantile(seen.refused_ms, 0.99), "ms",
            note=f"from its first byte {quantile(first, 0.99):.1f}; without Retry-After:"
            f" {seen.refused_without_retry_after} of {len(first)}")  # fmt: skip
    if seen.next_ms is None:
        book.say(f"{row}, next after the burst: {kind.name} none within 60 s")
    else:
        add("next after the burst", seen.next_ms / 1000, "s", "<= 0.2", "sent when all others were answered or gone")
