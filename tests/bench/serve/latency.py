"""How late answers come when there is no overload: at half the peak, and one at a time with batching and without."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import replace

from bench.book import Book, alternate, quantile
from bench.quiet import Watch
from bench.serve.candidates import Direct
from bench.serve.load import Seen
from bench.serve.networks import small_model
from bench.serve.peak import CLIENTS
from bench.serve.setting import Setting
from buoy import machine

__all__ = ["batching", "latency"]


def latency(setting: Setting, book: Book) -> None:
    """At half the service's own peak: the slowest of a hundred against one inference without HTTP.

    One inference is one caller that decodes, looks and makes JSON: with the threads that a caller of the service has,
    and, as a harder measure, with all cores.
    """
    pictures = setting.pictures
    for network, model in setting.networks.items():
        with ExitStack() as stack:
            service = stack.enter_context(setting.buoy.serve(model, setting.folder))
            service.until_answered(pictures[0].read_bytes())
            one = stack.enter_context(Direct("1x1", model, pictures, pin=True))
            all_cores = stack.enter_context(Direct(f"1x{machine.cores()}", model, pictures, pin=True))
            taken = alternate(
                3,
                {
                    "peak": lambda service=service: service.load(pictures, 2.5, clients=CLIENTS).rate,
                    "one": lambda one=one: one.rate(1.5),
                    "all": lambda all_cores=all_cores: all_cores.rate(1.5),
                },
                book,
            )
            peak, one_ms, all_ms = (statistics.median(taken[name]) for name in taken)
            one_ms, all_ms = 1000 / one_ms, 1000 / all_ms
            for name, seed in (("at equal intervals", None), ("of a Poisson process", 7)):
                watch = Watch()
                seen = service.load(pictures, 12.0, rate=peak / 2, seed=seed)
                if warning := watch.warning(f"{network} at half load"):
                    book.say(warning)
                _tell(book, f"{network}.half load, {name}", seen, peak, (one_ms, all_ms), judged=seed is None)


def _tell(book: Book, row: str, seen: Seen, peak: float, inference_ms: tuple[float, float], *, judged: bool) -> None:
    p50, p99 = quantile(seen.due_ms, 0.5), quantile(seen.due_ms, 0.99)
    one_ms, all_ms = inference_ms
    book.add(f"{row}, p50", "buoy", p50, "ms", note=f"{peak / 2:.1f}/s, {seen.statuses}")
    book.add(f"{row}, p99", "buoy", p99, "ms", note=f"generator late by p99 {quantile(seen.late_ms, 0.99):.1f} ms")
    book.add(f"{row}, p99 over one inference", "buoy", p99 / one_ms, "x", goal="<= 1.3" if judged else "",
             note=f"of {one_ms:.1f} ms by one thread; by all cores {all_ms:.1f} ms: {p99 / all_ms:.2f} x")  # fmt: skip


def batching(setting: Setting, book: Book) -> None:
    """The same network with and without batches of eight: one client at a time, and as many as fill them."""
    pictures = setting.pictures
    with ExitStack() as stack:
        services = {}
        for name, batch in (("batching off", 1), ("batching on", 8)):
            model = small_model(setting.folder / f"batch{batch}", batch=batch)
            kind = replace(setting.buoy, name=name)
            services[name] = stack.enter_context(kind.serve(model, setting.folder))
            services[name].until_answered(pictures[0].read_bytes())
        slow: dict[str, list[float]] = alternate(
            setting.rounds,
            {name: (lambda each=each: quantile(each.load(pictures, 2.0, clients=1).begun_ms, 0.5))
             for name, each in services.items()},
            book,
        )  # fmt: skip
        fast = alternate(
            setting.rounds,
            {name: (lambda each=each: each.load(pictures, 2.5, clients=16).rate) for name, each in services.items()},
            book,
        )
    for name, values in slow.items():
        book.add("one client, p50", name, statistics.median(values), "ms", rounds=values)
    pairs = [on / off for on, off in zip(slow["batching on"], slow["batching off"], strict=True)]
    book.add("one client, p50 with batching over without", "buoy", statistics.median(pairs), "x", goal="<= 1.03",
             rounds=pairs)  # fmt: skip
    pairs = [on / off for on, off in zip(fast["batching on"], fast["batching off"], strict=True)]
    book.add("16 clients, rate with batching over without", "buoy", statistics.median(pairs), "x", rounds=pairs,
             note=f"{statistics.median(fast['batching on']):.1f}/s against"
             f" {statistics.median(fast['batching off']):.1f}/s")  # fmt: skip
