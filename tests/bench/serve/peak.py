"""Pictures a second that each way of serving reaches at most, over the plain loop and over the limit."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.book import Book, alternate
from bench.serve.candidates import STARLETTE, STARLETTE_DEFAULT, Direct, Service
from bench.serve.setting import Setting
from buoy import machine

__all__ = ["CLIENTS", "peak"]

#: Of the closed loop: enough that no core waits, few enough that nobody is refused.
CLIENTS = 8
_GOALS = {"detector": ">= 1.2", "small": ">= 1.45"}


def peak(setting: Setting, book: Book) -> None:
    """Both networks; every candidate warm in its own process, measured in turn."""
    for network, model in setting.networks.items():
        _one(setting, book, network, model)


def _one(setting: Setting, book: Book, network: str, model: Path) -> None:
    pictures, seconds = setting.pictures, setting.seconds
    limit = best_limit(setting, book, model)
    generator: list[float] = []
    with ExitStack() as stack:
        plain = stack.enter_context(Direct("plain", model, pictures, pin=True))
        plain_default = stack.enter_context(Direct("plain", model, pictures, pin=False))
        best = stack.enter_context(Direct(limit, model, pictures, pin=True))
        measured: dict[str, Callable[[], float]] = {
            "plain": lambda: plain.rate(seconds),
            "plain, default allocator": lambda: plain_default.rate(seconds),
            "limit": lambda: best.rate(seconds),
        }
        for kind in (setting.buoy, STARLETTE, STARLETTE_DEFAULT, *setting.others):
            service = stack.enter_context(kind.serve(model, setting.folder))
            service.until_answered(pictures[0].read_bytes())
            if kind is setting.buoy:
                book.say(f"buoy runs the {network} {service.way()}")
            measured[kind.name] = _rate(setting, service, generator)
        rates = alternate(setting.rounds, measured, book)
    book.say(f"{network}: pictures of 1920 x 1080, {CLIENTS} clients, {setting.rounds} rounds of {seconds:g} s;"
             f" limit is {limit}; the generator took {statistics.median(generator):.0%} of a core")  # fmt: skip
    for name, values in rates.items():
        book.add(f"{network}.rate", name, statistics.median(values), "pictures/s", rounds=values)
    book.ratios(f"{network}.peak over plain", rates, "plain", {"buoy": _GOALS[network]}, label="plain, pinned")
    default = {name: rates[name] for name in ("plain, default allocator", "buoy", "limit", STARLETTE_DEFAULT.name)}
    book.ratios(f"{network}.peak over plain, default allocator", default, "plain, default allocator", {})
    book.ratios(f"{network}.peak over limit", {"buoy": rates["buoy"], "limit": rates["limit"]}, "limit", {})


def _rate(setting: Setting, service: Service, generator: list[float]) -> Callable[[], float]:
    def rate() -> float:
        seen = service.load(setting.pictures, setting.seconds + 0.3, clients=CLIENTS)
        if set(seen.statuses) - {"200", "429"}:
            raise SystemExit(f"{service.kind.name}: {seen.statuses}")
        if len(seen.statuses) > 1:
            print(f"{service.kind.name}: {seen.statuses}", flush=True)
        generator.append(seen.own_cpu)
        return seen.rate

    return rate


def best_limit(setting: Setting, book: Book, model: Path) -> str:
    """The callers x threads that is fastest here, out of those that use all cores."""
    cores = machine.cores()
    kinds = [f"{callers}x{cores // callers}" for callers in range(1, cores + 1) if cores % callers == 0]
    kinds.append(f"{cores + 1}x1")
    with ExitStack() as stack:
        loops = {kind: stack.enter_context(Direct(kind, model, setting.pictures, pin=True)) for kind in kinds}
        rates = alternate(2, {kind: (lambda loop=loop: loop.rate(1.5)) for kind, loop in loops.items()})
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    book.say("callers x threads, pictures/s: " + ", ".join(f"{kind} {rate:.1f}" for kind, rate in medians.items()))
    return max(medians, key=lambda kind: medians[kind])
