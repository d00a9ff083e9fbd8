"""The one piece that keeps the machine busy between a model and whoever runs it.

Each lane is a thread that takes an input through reading, inference and post-processing. The model's session
lets `callers` of them run the network at once, so lanes beyond that decode ahead while others infer. Everything is
bounded: `map` takes an input from its source only when a lane is about to be free for it, and `submit` refuses
when too many wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from buoy import machine
from buoy.errors import BuoyError, DeadlineError, as_buoy_error
from buoy.folders import find_folder
from buoy.image import Pixels
from buoy.lanes import Lanes
from buoy.manifest import Manifest
from buoy.model import Model, describe, read_file
from buoy.results import Failure, FrameInfo, InputInfo, Record
from buoy.tasks import Thresholds
from buoy.tuning import choose, recall
from buoy.waiting import Line

__all__ = ["Engine", "Input", "Outcome"]


class Input(NamedTuple):
    """One input: its encoded bytes, the path of its file, or why it could not be had.

    A frame that was decoded out of a video in this process comes as pixels, (H, W, 3) uint8 RGB; between
    processes only encoded bytes and paths travel.
    """

    name: str
    source: bytes | Path | Pixels | BuoyError
    #: Where it stands in a stream, if it is from one.
    frame: FrameInfo | None = None


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


class _Asked(NamedTuple):
    #: What a lane does.
    work: Callable[[], Any]
    future: Future[Any]
    #: What it is done with, where that is known before.
    input: Input | None = None


class Engine:
    """Runs one model over many inputs, several at once.

    Args:
        model: loaded with as many `callers` as are to run at once (`Engine.open` does both).
        keep_pixels: hand the decoded pictures on, for those who draw.
        thresholds: other than the manifest's.
        queue: how many inputs of `submit` may wait for a lane.
    """

    def __init__(
        self, model: Model, *, keep_pixels: bool = False, thresholds: Thresholds | None = None, queue: int = 64
    ) -> None:
        self.model = model
        self._keep_pixels = keep_pixels
        self.thresholds = thresholds
        callers = model.session.callers
        # A lane for each picture in a full batch of each caller. More lanes decode ahead: with CPU inference on all
        # cores they find no free core and cost a picture of memory each, so only a device of its own gets them.
        self.lanes = callers * model.session.batch
        self.lanes += 0 if model.session.provider == "CPUExecutionProvider" else machine.cores()
        self._threads = Lanes(self.lanes)
        self._line: Line[_Asked] = Line(self.lanes, most=queue, late=self._too_late)
        self._lock = threading.Lock()
        #: Calls of `_turn` that the pool has not begun: never fewer than there are inputs waiting.
        self._turns = 0

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        callers: int | None = None,
        cores: int | None = None,
        keep_pixels: bool = False,
        thresholds: Thresholds | None = None,
        measure: bool = False,
    ) -> Engine:
        """Load a model for throughput, with the allocator pinned.

        Args:
            folder: the model's folder, or its name.
            callers: runs of the network at once; by default what the manifest says or what is best here.
            cores: how many are ours, where several engines share the machine; by default all of them.
            keep_pixels: see the class.
            thresholds: see the class.
            measure: find out what is best here if that is not known yet, which takes about a second; else it is one
                caller with one thread for each core.

        Raises:
            ManifestError, WeightsError: see `Model.load`.
        """
        machine.pin_allocator()
        folder = find_folder(folder)
        manifest = Manifest.load(folder)
        tuning = choose(folder, manifest, callers, cores) if measure else recall(manifest, callers, cores)
        model = Model.load(folder, threads=tuning.threads, callers=tuning.callers, batch=tuning.batch)
        return cls(model, keep_pixels=keep_pixels, thresholds=thresholds)

    def map(self, inputs: Iterable[Input]) -> Iterator[Outcome]:
        """Outcomes in the order of the inputs, which are taken as lanes become free."""
        running: deque[Future[Outcome]] = deque()
        try:
            for each in inputs:
                running.append(self._enter(each, None, None, None, bounded=False))
                if len(running) > self.lanes * 2:  # one in each lane, and one waiting for it
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def submit(
        self,
        input: Input,
        *,
        deadline_s: float | None = None,
        thresholds: Thresholds | None = None,
        keep_pixels: bool | None = None,
    ) -> Future[Outcome]:
        """Have one input looked at. The future's result is an `Outcome`, failures included; it never raises.

        Until a lane has taken the input, `cancel` of the future takes it out of the queue.

        Args:
            input: what to look at.
            deadline_s: how long it may wait; when that is over it is dropped, and is a `DeadlineError`.
            thresholds: other than the engine's.
            keep_pixels: other than the engine's.

        Raises:
            BusyError: the queue is full, or its wait longer than the deadline.
        """
        return self._enter(input, deadline_s, thresholds, keep_pixels, bounded=True)

    def lend(self, work: Callable[[], None]) -> None:
        """Have something done in a lane when one is free for it, in turn with the inputs that wait.

        For those who decide only then what to look at, and do that by `look`. Work that raises ends like any other.

        Args:
            work: called once; whoever lends keeps the number of those that wait small.
        """
        self._join(_Asked(work, Future()), None, bounded=False)

    def look(self, input: Input, *, thresholds: Thresholds | None = None, keep_pixels: bool | None = None) -> Outcome:
        """Look at one input at once, in the caller's thread, which is a lane's (see `lend`). Never raises.

        Args:
            input: what to look at.
            thresholds: other than the engine's.
            keep_pixels: other than the engine's.
        """
        data: bytes | Pixels = b""
        try:
            if isinstance(input.source, BuoyError):
                raise input.source
            data = read_file(input.source) if isinstance(input.source, Path) else input.source
            keep = self._keep_pixels if keep_pixels is None else keep_pixels
            thresholds = thresholds or self.thresholds
            seen = self.model.look(data, name=input.name, frame=input.frame, thresholds=thresholds, keep_pixels=keep)
            return Outcome(input, seen.result, seen.pixels)
        except Exception as error:  # the next input has nothing to do with this one's fault
            told = as_buoy_error(error, input.name)
            info = InputInfo(**describe(input.name, data, input.frame))
            return Outcome(input, Failure.of(told, info, self.model.info))

    @property
    def pending(self) -> int:
        """How many inputs wait or are worked on."""
        return self._line.pending

    def close(self) -> None:
        """Wait for what is running and end the threads."""
        self._threads.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enter(
        self,
        input: Input,
        deadline_s: float | None,
        thresholds: Thresholds | None,
        keep_pixels: bool | None,
        *,
        bounded: bool,
    ) -> Future[Outcome]:
        work = partial(self.look, input, thresholds=thresholds, keep_pixels=keep_pixels)
        return self._join(_Asked(work, Future(), input), deadline_s, bounded=bounded)

    def _join(self, asked: _Asked, deadline_s: float | None, *, bounded: bool) -> Future[Any]:
        self._line.join(asked, deadline_s, bounded=bounded)
        asked.future.add_done_callback(lambda future: self._line.leave(asked) if future.cancelled() else None)
        with self._lock:
            if self._turns < len(self._line):
                self._turns += 1
                self._threads.submit(self._turn)
        return asked.future

    def _turn(self) -> None:
        """Take the next input from the queue, if there is one left, all the way through."""
        with self._lock:
            self._turns -= 1
        while turn := self._line.next():
            asked, began_s = turn.item, time.monotonic()
            if not asked.future.set_running_or_notify_cancel():
                self._line.done(None)
                continue
            try:
                done = asked.work()
            except Exception as error:
                self._line.done(None)
                asked.future.set_exception(error)
                return
            self._line.done(time.monotonic() - began_s)
            asked.future.set_result(done)
            return

    def _too_late(self, asked: _Asked) -> None:
        input = asked.input
        if input and asked.future.set_running_or_notify_cancel():
            error = DeadlineError(
                f"{input.name}: its deadline was over before its turn came",
                "try again later, or give it more time",
                retry_after_s=self._line.wait_s(),
            )
            info = InputInfo(**describe(input.name, b"", input.frame))
            asked.future.set_result(Outcome(input, Failure.of(error, info, self.model.info)))
