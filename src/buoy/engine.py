"""The one piece that keeps the machine busy between a model and whoever runs it.

Each lane is a thread that takes an input through reading, inference and post-processing. The model's session
lets `callers` of them run the network at once, so lanes beyond that decode ahead while others infer. Everything is
bounded: an input is taken from its source only when a lane is about to be free for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from buoy import machine
from buoy.errors import BuoyError, as_buoy_error
from buoy.image import Pixels
from buoy.model import Model, describe, read_file
from buoy.results import Failure, InputInfo, Record
from buoy.tasks import Thresholds

__all__ = ["Engine", "Input", "Outcome"]


class Input(NamedTuple):
    """One input: its encoded bytes or the path of its file, never pixels; or why it could not be had."""

    name: str
    source: bytes | Path | BuoyError


class Outcome(NamedTuple):
    """What became of one input. A failure is a value like any other."""

    input: Input
    record: Record
    #: (H, W, 3) uint8, RGB, upright; absent for failures and where pictures are not kept.
    pixels: Pixels | None = None

    @property
    def failed(self) -> bool:
        """Whether the record is a `Failure`."""
        return isinstance(self.record, Failure)


class Engine:
    """Runs one model over many inputs, several at once.

    Args:
        model: loaded with as many `callers` as are to run at once (`Engine.open` does both).
        keep_pixels: hand the decoded pictures on, for those who draw.
        thresholds: other than the manifest's.
    """

    def __init__(self, model: Model, *, keep_pixels: bool = False, thresholds: Thresholds | None = None) -> None:
        self.model = model
        self._keep_pixels = keep_pixels
        self.thresholds = thresholds
        callers = model.session.callers
        # One lane more than callers decodes ahead. With CPU inference on all cores it finds no free core and
        # costs a picture of memory, so only a device of its own gets it.
        self.lanes = callers if model.session.provider == "CPUExecutionProvider" else callers + machine.cores()
        self._pool = ThreadPoolExecutor(self.lanes, thread_name_prefix="lane")

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        callers: int | None = None,
        keep_pixels: bool = False,
        thresholds: Thresholds | None = None,
    ) -> Engine:
        """Load a model for throughput: a caller with one thread for each core, and the allocator pinned."""
        machine.pin_allocator()
        callers = callers or machine.cores()
        threads = max(1, machine.cores() // callers)
        model = Model.load(folder, threads=threads, callers=callers)
        return cls(model, keep_pixels=keep_pixels, thresholds=thresholds)

    def map(self, inputs: Iterable[Input]) -> Iterator[Outcome]:
        """Outcomes in the order of the inputs, which are taken as lanes become free."""
        running: deque[Future[Outcome]] = deque()
        try:
            for each in inputs:
                running.append(self.submit(each))
                if len(running) > self.lanes * 2:  # one in each lane, and one waiting for it
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def submit(self, input: Input) -> Future[Outcome]:
        """Start on one input. The future's result is an `Outcome`, failures included; it never raises."""
        return self._pool.submit(self._look, input)

    def close(self) -> None:
        """Wait for what is running and end the threads."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, input: Input) -> Outcome:
        data = b""
        try:
            if isinstance(input.source, BuoyError):
                raise input.source
            data = input.source if isinstance(input.source, bytes) else read_file(input.source)
            seen = self.model.look(data, name=input.name, thresholds=self.thresholds)
            return Outcome(input, seen.result, seen.pixels if self._keep_pixels else None)
        except Exception as error:  # the next input has nothing to do with this one's fault
            told = as_buoy_error(error, input.name)
            return Outcome(input, Failure.of(told, InputInfo(**describe(input.name, data)), self.model.info))
