"""What is counted and measured, in the text format of Prometheus.

Written here rather than with the client library: a service of one process needs three kinds of numbers, and
the time from start to the first answer is worth more than the rest of a library. Names are Triton's where it
has one, so that its dashboards work; the others begin with `buoy_`.

Source of the format: the text-based exposition format 0.0.4 of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

__all__ = ["Counter", "Gauge", "Histogram", "Metrics"]

_Labels = tuple[tuple[str, str], ...]


def _key(labels: dict[str, str]) -> _Labels:
    return tuple(sorted(labels.items())) if len(labels) > 1 else tuple(labels.items())


def _sample(name: str, labels: _Labels, value: float) -> str:
    quoted = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    return f"{name}{{{quoted}}} {value:g}\n" if quoted else f"{name} {value:g}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Counter:
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self.values: dict[_Labels, float] = {}

    def add(self, amount: float, **labels: str) -> None:
        """Count `amount` more."""
        key = _key(labels)
        self.values[key] = self.values.get(key, 0.0) + amount

    def samples(self) -> Iterator[str]:
        """The lines of its values."""
        for labels, value in self.values.items():
            # %g would round a large count
            yield _sample(self.name, labels, 0).removesuffix("0\n") + f"{round(value, 3):.15g}\n"


class Gauge(Counter):
    """A number that is set, or looked up when it is asked for."""

    kind = "gauge"

    def __init__(self, name: str, about: str) -> None:
        super().__init__(name, about)
        self._ask: list[tuple[_Labels, Callable[[], float]]] = []

    def set(self, value: float, **labels: str) -> None:
        """What it is now."""
        self.values[_key(labels)] = value

    def ask(self, source: Callable[[], float], **labels: str) -> None:
        """Where to look it up."""
        self._ask.append((_key(labels), source))

    def samples(self) -> Iterator[str]:
        """The lines of its values."""
        for labels, source in self._ask:
            self.values[labels] = source()
        yield from super().samples()


#: Bounds of times, seconds.
_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """How often a value was at most so large."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: tuple[float, ...] = _TIMES) -> None:
        self.name = name
        self.about = about
        self.bounds = bounds
        self._counts: dict[_Labels, list[int]] = {}
        self._sums: dict[_Labels, float] = {}

    def see(self, value: float, **labels: str) -> None:
        """One more."""
        key = _key(labels)
        counts = self._counts.setdefault(key, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, value)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + value

    def samples(self) -> Iterator[str]:
        """The lines of its values."""
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
                total += count
                yield _sample(f"{self.name}_bucket", (*labels, ("le", bound)), total)
            yield _sample(f"{self.name}_sum", labels, self._sums[labels])
            yield _sample(f"{self.name}_count", labels, total)


#: Bounds for the parts of looking at a picture, which take less than a whole request.
_PARTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """All numbers of the service."""

    def __init__(self) -> None:
        nv = "nv_inference_"
        self.success = Counter(f"{nv}request_success", "Requests that were answered with a result")
        self.failure = Counter(f"{nv}request_failure", "Requests that were not, by reason")
        self.count = Counter(f"{nv}count", "Pictures looked at")
        self.executions = Counter(f"{nv}exec_count", "Runs of the network")
        self.request_us = Counter(f"{nv}request_duration_us", "From the end of the body to the answer")
        self.queue_us = Counter(f"{nv}queue_duration_us", "Waiting for a lane")
        self.input_us = Counter(f"{nv}compute_input_duration_us", "Decoding and preparing")
        self.infer_us = Counter(f"{nv}compute_infer_duration_us", "In the network")
        self.output_us = Counter(f"{nv}compute_output_duration_us", "Decoding its output and encoding the answer")
        self.pending = Gauge(f"{nv}pending_request_count", "Requests that wait or are looked at")
        self.waiting = Gauge("buoy_queue_depth", "Requests that wait for a lane")
        self.queue_s = Histogram("buoy_queue_seconds", "Waiting for a lane", _PARTS)
        self.decode_s = Histogram("buoy_decode_seconds", "Decoding and preparing a picture", _PARTS)
        self.inference_s = Histogram("buoy_inference_seconds", "In the network", _PARTS)
        self.post_s = Histogram("buoy_post_seconds", "Decoding the output and encoding the answer", _PARTS)
        self.requests = Counter("buoy_requests_total", "Requests by route and status, over HTTP, WebSocket and gRPC")
        self.seconds = Histogram("buoy_request_seconds", "From the head of a request to the end of its answer")
        self.refused = Counter("buoy_refused_total", "Requests refused or given up, by class of the error")
        self.uploads = Gauge("buoy_uploads_open", "Bodies that are being received")
        self.ready = Gauge("buoy_model_ready", "1 if the model answers")
        self.restarts = Counter("buoy_worker_restarts_total", "Ends of the inference process that nobody asked for")
        self.load_s = Gauge("buoy_model_load_seconds", "Reading and checking the weights, latest start")
        self.warm_up_s = Gauge("buoy_model_warm_up_seconds", "The first run, latest start")
        self.callers = Gauge("buoy_callers", "Runs of the network at once")
        self.threads = Gauge("buoy_threads", "Threads within one run")
        self.batch_most = Gauge("buoy_batch_most", "Pictures in one run at the most")
        self.batch_size = Histogram("buoy_batch_size", "Pictures in the run that a picture was in", (1, 2, 4, 8, 16))
        #: Asked for further numbers each time.
        self.more: list[Callable[[], Iterable[Counter]]] = []

    def loaded(self, about: dict[str, Any]) -> None:
        """Note what an inference process says of itself."""
        model = about["model"]["name"]
        for gauge, key in (
            (self.load_s, "load_s"),
            (self.warm_up_s, "warm_up_s"),
            (self.callers, "callers"),
            (self.threads, "threads"),
            (self.batch_most, "batch"),
        ):
            gauge.set(about[key], model=model)
        self.restarts.add(0, model=model)  # else the first one would be no increase

    def answered(self, model: str, version: str, duration_s: float, spent: dict[str, float]) -> None:
        """Note an answered request."""
        labels = {"model": model, "version": version}
        for counter in (self.success, self.count):
            counter.add(1, **labels)
        self.executions.add(1 / spent["batch"], **labels)
        self.batch_size.see(spent["batch"], **labels)
        after_ms = spent["total_ms"] - spent["read_ms"] - spent["infer_ms"] + spent["encode_ms"]
        self.request_us.add(duration_s * 1e6, **labels)
        for counter, histogram, ms in (
            (self.queue_us, self.queue_s, spent["queue_ms"]),
            (self.input_us, self.decode_s, spent["read_ms"]),
            (self.infer_us, self.inference_s, spent["infer_ms"]),
            (self.output_us, self.post_s, max(0.0, after_ms)),
        ):
            counter.add(ms * 1e3, **labels)
            histogram.see(ms / 1e3, **labels)

    def text(self) -> str:
        """The page at /metrics."""
        lines = []
        own = [each for each in vars(self).values() if isinstance(each, Counter | Histogram)]
        for metric in (*own, *chain.from_iterable(ask() for ask in self.more)):
            lines += [f"# HELP {metric.name} {metric.about}.\n", f"# TYPE {metric.name} {metric.kind}\n"]
            lines += metric.samples()
        return "".join(lines)
