"""The service's side of one model: its line of requests, and the process that looks at them.

The process gets as many pictures as it has lanes, and two more so that no lane waits for the next (with one, lanes
that end together cost a small network a tenth of its rate). The others wait here, so a crash costs those few, and
those that wait are looked at by the next process. A new version of
the model is loaded beside the old one, takes over when it is ready, and the old one leaves when it has
answered what it was looking at.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Protocol

from buoy.errors import BuoyError, DeadlineError, JobError, UsageError
from buoy.serve.metrics import Metrics
from buoy.serve.refusals import NotReady, Remote
from buoy.serve.spawn import Spawned
from buoy.serve.worker import Answer, Asked, Question, Worker
from buoy.waiting import Line

__all__ = ["Answer", "Listener", "Looker", "Question"]

_log = logging.getLogger("buoy.serve")

#: Pictures that the process has beyond those in its lanes.
_AHEAD = 2
_BACK_OFF_S = (0.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


class Listener(Protocol):
    """Told what the process says of its streams, and when it comes and goes."""

    def event(self, head: dict[str, Any], body: bytes) -> None:
        """Something happened in a stream; see `buoy.streams.host`."""
        ...

    def worker_ready(self, looker: Looker) -> None:
        """A process is ready, the first one or another one after a crash: it has no streams yet."""
        ...

    def worker_lost(self, looker: Looker, how: str) -> None:
        """The process is gone, and its streams with it."""
        ...


class Looker:
    """One model: takes questions while there is room, and keeps a process that answers them.

    Args:
        process: the first one, which is loading already.
        max_wait_s: see `buoy.waiting.Line`.
        metrics: what is counted.
    """

    def __init__(self, process: Spawned, *, max_wait_s: float, metrics: Metrics) -> None:
        self.name = Path(process.model).resolve().name
        #: What the process said of itself and its model when it was last ready.
        self.about: dict[str, Any] = {}
        self.restarts = 0
        #: Set when the first process is ready or has refused.
        self.first = asyncio.Event()
        #: Who cares for the streams, if anybody.
        self.listener: Listener | None = None
        self._metrics = metrics
        self._worker = Worker(process, self.name, self._take)
        self._line: Line[Asked] = Line(1, max_wait_s=max_wait_s, late=self._too_late)
        self._number = 0
        self._closing = False
        self._failures = 0
        self._replacing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to talk with the process; needs a running loop."""
        self._follow(self._worker)

    @property
    def ready(self) -> bool:
        """Whether it can be asked now."""
        return self._worker.ready

    @property
    def refusal(self) -> BuoyError | None:
        """Why the latest process could not load the model, if it could not."""
        return self._worker.refusal

    @property
    def pending(self) -> int:
        """Requests that wait or are looked at."""
        return self._line.pending

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._line)

    @property
    def pid(self) -> int:
        """Of the process that answers, or of the latest one."""
        return self._worker.spawned.process.pid

    def admit(self, deadline_s: float) -> None:
        """Refuse a request before its body is read, if there is no room.

        Raises:
            NotReady: the model has never been ready, or its process keeps dying.
            BusyError: too many wait.
        """
        if self._closing:
            raise NotReady("the service is about to end", "send it again: another instance may take it")
        if not self.ready and (not self.about or self._failures > 2):
            raise NotReady(f"the model {self.name} is being loaded", "try again in a second")
        self._line.admit(deadline_s)

    async def ask(self, question: Question) -> Answer:
        """Have a picture looked at. Cancelling the call takes the picture out again.

        Raises:
            NotReady: see `admit`.
            BusyError: too many wait, or, as `DeadlineError`, this one waited in vain.
            Remote: the picture cannot be read.
            JobError: the process died over it.
        """
        self.admit(question.deadline_s)
        self._number += 1
        loop = asyncio.get_running_loop()
        asked = Asked(self._number, question, loop.create_future())
        self._line.join(asked, question.deadline_s)
        timer = loop.call_later(question.deadline_s, self._expire, asked)
        try:
            self._pump()
            return await asked.future
        except asyncio.CancelledError:
            if not self._line.leave(asked):
                self._worker.cancel(asked)
            raise
        finally:
            timer.cancel()

    def tell(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Say something about a stream to the process, if there is one; see `buoy.streams.host`."""
        if self.ready:
            self._worker.say(head, body)

    async def pass_on(self, head: dict[str, Any], body: bytes = b"") -> None:
        """As `tell`, and wait until it is on its way: whoever sends much waits for a process that is slow."""
        if self.ready:
            await self._worker.pass_on(head, body)

    async def replace(self) -> dict[str, Any]:
        """Load the model's folder again and answer with that from then on; no request is lost over it.

        Returns:
            What the new process says of itself.

        Raises:
            BuoyError: what is in the folder now cannot be loaded; the old one goes on.
        """
        async with self._replacing:
            fresh = Worker(self._worker.spawned.again(), self.name, self._take)
            self._follow(fresh)
            await fresh.begun.wait()
            if not fresh.ready:
                raise fresh.refusal or JobError(f"the new process of {self.name} ended while it loaded the model")
            named = fresh.about["model"]["name"]
            if named != self.name:
                await fresh.end()
                raise UsageError(
                    f"the manifest now names the model {named!r}", f"start another service for it; this is {self.name}"
                )
            self._put(fresh, self._worker)
        return self.about

    async def close(self) -> None:
        """Finish what was accepted, then end the process."""
        self._closing = True
        while self.pending and self._tasks:
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.end()

    def _expire(self, asked: Asked) -> None:
        if self._line.leave(asked):
            self._too_late(asked)

    def _too_late(self, asked: Asked) -> None:
        if not asked.future.done():
            asked.future.set_exception(
                DeadlineError(
                    f"there is no turn for it within its deadline of {asked.question.deadline_s:g} s",
                    "try again later, or give it more time",
                    retry_after_s=self._line.wait_s(),
                )
            )

    def _pump(self) -> None:
        """Send as many as the process can begin with."""
        worker = self._worker
        while worker.ready and len(worker.running) < self._line.lanes + _AHEAD and (turn := self._line.next()):
            turn.item.waited_s = turn.waited_s
            worker.send(turn.item)

    def _take(self, head: dict[str, Any], body: bytes, asked: Asked | None) -> None:
        if asked is None:
            if self.listener:
                self.listener.event(head, body)
            return
        spent = {"queue_ms": round(asked.waited_s * 1000, 2), **head["spent"]}
        lane_ms = spent.get("total_ms")
        self._line.done(lane_ms / 1000 if lane_ms else None)
        if not asked.future.done():
            if head["outcome"] == "done":
                asked.future.set_result(Answer(head["media_type"], body, spent, head["version"]))
            elif head["outcome"] == "failed":
                asked.future.set_exception(Remote(head["error"]))
            elif head["outcome"] == "late":
                self._too_late(asked)
        self._pump()

    def _follow(self, worker: Worker) -> None:
        task = asyncio.create_task(self._live(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, worker: Worker) -> None:
        """From the start of a process to its end, and on with the next one if it was not to end."""
        await worker.live(self._welcome)
        self.first.set()
        if worker is not self._worker:  # replaced, or never needed
            self._lose(worker, await worker.end())
            return
        if worker.refusal and not self.about:
            return  # whoever started us is told
        self._crashed(worker, await worker.end())
        await asyncio.sleep(_BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)])
        if worker is self._worker:  # nobody has put another version in its place meanwhile
            await self._revive(worker)

    async def _revive(self, worker: Worker) -> None:
        """Start another process; a machine that has no room for one now may have it later."""
        while worker is self._worker:
            try:
                self._worker = Worker(worker.spawned.again(), self.name, self._take)
            except OSError as error:
                _log.error("cannot start a process", extra={"fields": {"model": self.name, "error": str(error)}})
                await asyncio.sleep(_BACK_OFF_S[-1])
            else:
                self._follow(self._worker)

    def _welcome(self, worker: Worker) -> None:
        if worker is self._worker:
            self._failures = 0
            self.name = worker.about["model"]["name"]
            self._put(worker, None)

    def _put(self, worker: Worker, old: Worker | None) -> None:
        """From now on this process answers; the one before it finishes and leaves."""
        self._worker, self.about = worker, worker.about
        self._line.lanes = worker.about["lanes"]
        self._metrics.loaded(worker.about)
        about = {key: worker.about[key] for key in ("pid", "callers", "threads", "batch", "provider", "load_s")}
        fields = {"model": self.name, "version": worker.about["model"]["version"], "start_s": round(worker.start_s, 3)}
        _log.info("ready", extra={"fields": {**fields, **about}})
        self.first.set()
        if self.listener:
            if old and old.ready:
                old.replaced = True
                self.listener.worker_lost(self, "replaced by a new version")
            self.listener.worker_ready(self)
        if old:
            retiring = asyncio.create_task(self._retire(old))
            self._tasks.add(retiring)
            retiring.add_done_callback(self._tasks.discard)
        self._pump()

    async def _retire(self, worker: Worker) -> None:
        await worker.finish()
        await worker.end()

    def _crashed(self, worker: Worker, how: str) -> None:
        if worker.refusal:
            fields = {"model": self.name, **worker.refusal.record()}
            _log.error("the model cannot be loaded", extra={"fields": fields})
        if self.listener:
            self.listener.worker_lost(self, how)
        lost = self._lose(worker, how)
        self.restarts += 1
        self._failures += 1
        self._metrics.restarts.add(1, model=self.name)
        fields = {"model": self.name, "how": how, "lost": lost, "waiting": len(self._line)}
        _log.error("the inference process ended", extra={"fields": fields})

    def _lose(self, worker: Worker, how: str) -> int:
        """Say so to those whose picture the process was looking at."""
        lost, worker.running = list(worker.running.values()), {}
        for asked in lost:
            self._line.done(None)
            if not asked.future.done():
                asked.future.set_exception(
                    JobError(
                        f"the inference process ended while it looked at this picture ({how})",
                        "send it again; if it happens again, the picture or the memory limit is the cause",
                        retry=True,
                    )
                )
        return len(lost)
