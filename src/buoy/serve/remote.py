"""The service's side of one model: its line of requests, and the process that looks at them.

The process gets as many pictures as it has lanes, and one more so that no lane waits for the next. The others
wait here, so a crash costs those few, and those that wait are looked at by the next process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from buoy.errors import BuoyError, DeadlineError, JobError
from buoy.serve import wire
from buoy.serve.metrics import Metrics
from buoy.serve.refusals import NotReady, Remote
from buoy.serve.spawn import Spawned
from buoy.waiting import Line

__all__ = ["Answer", "Listener", "Looker", "Question"]

_log = logging.getLogger("buoy.serve")

_PIECE_BYTES = 256 << 10
#: One picture that keeps a lane for longer is taken for a hang, and the process is ended.
_HANG_S = 120.0
_BACK_OFF_S = (0.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


class Question(NamedTuple):
    """A picture, and what is asked about it."""

    picture: IO[bytes]
    name: str
    form: str = "json"
    #: `score` and `iou`, where they differ from the manifest's.
    thresholds: dict[str, float] = {}  # noqa: RUF012 - never changed
    deadline_s: float = 10.0


class Answer(NamedTuple):
    """The encoded answer."""

    media_type: str
    body: bytes
    spent: dict[str, float]


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


class _Asked:
    """A question on its way."""

    def __init__(self, number: int, question: Question, future: asyncio.Future[Answer]) -> None:
        self.number = number
        self.question = question
        self.future = future
        self.began_s = time.monotonic()
        self.waited_s = 0.0


class Looker:
    """One model: takes questions while there is room, and keeps a process that answers them.

    Args:
        process: the first one, which is loading already.
        max_wait_s: see `buoy.waiting.Line`.
        metrics: what is counted.
    """

    def __init__(self, process: Spawned, *, max_wait_s: float, metrics: Metrics) -> None:
        self.name = Path(process.model).resolve().name
        self.ready = False
        #: What the process said of itself and its model when it was first ready.
        self.about: dict[str, Any] = {}
        self.restarts = 0
        #: Set when the first process is ready or has refused.
        self.first = asyncio.Event()
        self.refusal: BuoyError | None = None
        #: Who cares for the streams, if anybody.
        self.listener: Listener | None = None
        self._process: Spawned | None = process
        self._metrics = metrics
        self._line: Line[_Asked] = Line(1, max_wait_s=max_wait_s, late=self._too_late)
        self._running: dict[int, _Asked] = {}
        self._number = 0
        self._closing = False
        self._failures = 0
        self._sending = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._senders: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to talk with the process; needs a running loop."""
        self._task = asyncio.create_task(self._keep_alive())

    @property
    def pending(self) -> int:
        """Requests that wait or are looked at."""
        return len(self._line) + len(self._running)

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.process.pid if self._process else None

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
        asked = _Asked(self._number, question, loop.create_future())
        self._line.join(asked, question.deadline_s)
        timer = loop.call_later(question.deadline_s, self._expire, asked)
        try:
            self._pump()
            return await asked.future
        except asyncio.CancelledError:
            self._forget(asked)
            raise
        finally:
            timer.cancel()

    def tell(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Say something about a stream to the process, if there is one; see `buoy.streams.host`."""
        if self.ready:
            self._later(self._say(head, body))

    async def close(self) -> None:
        """Finish what was accepted, then end the process."""
        self._closing = True
        while self.pending and self._task and not self._task.done():
            await asyncio.sleep(0.02)
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._writer:
            self._writer.close()
        if self._process:
            await asyncio.to_thread(self._process.end, 5.0)

    def _expire(self, asked: _Asked) -> None:
        if self._line.leave(asked):
            self._too_late(asked)

    def _too_late(self, asked: _Asked) -> None:
        if not asked.future.done():
            asked.future.set_exception(
                DeadlineError(
                    f"the deadline of {asked.question.deadline_s:g} s was over before its turn came",
                    "try again later, or give it more time",
                    retry_after_s=self._line.wait_s(),
                )
            )

    def _forget(self, asked: _Asked) -> None:
        if not self._line.leave(asked) and asked.number in self._running and self._writer:
            with suppress(OSError, RuntimeError):
                self._send_later(asked.number, None)

    def _pump(self) -> None:
        """Send as many as the process can begin with."""
        while self.ready and len(self._running) <= self._line.lanes and (turn := self._line.next()):
            turn.item.waited_s = turn.waited_s
            self._running[turn.item.number] = turn.item
            turn.item.began_s = time.monotonic()
            self._send_later(turn.item.number, turn.item.question)

    def _send_later(self, number: int, question: Question | None) -> None:
        self._later(self._send(number, question))

    def _later(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._senders.add(task)
        task.add_done_callback(self._senders.discard)

    async def _send(self, number: int, question: Question | None) -> None:
        writer = self._writer
        async with self._sending:
            if writer is None or writer is not self._writer:
                return
            with suppress(ConnectionError):
                if question is None:
                    writer.write(wire.frame({"op": "cancel", "id": number}))
                    return
                if question.picture.closed:  # the client has gone meanwhile
                    if self._running.pop(number, None):
                        self._line.done(None)
                    self._pump()
                    return
                question.picture.seek(0)
                data = memoryview(question.picture.read())  # all of it, as it may be closed while we wait below
                head = {"op": "look", "id": number, "name": question.name, "form": question.form}
                writer.write(wire.frame(head | question.thresholds, len(data)))
                for at in range(0, len(data), _PIECE_BYTES):
                    writer.write(data[at : at + _PIECE_BYTES])
                    await writer.drain()

    async def _say(self, head: dict[str, Any], body: bytes) -> None:
        writer = self._writer
        async with self._sending:
            if writer is not None and writer is self._writer:
                with suppress(ConnectionError):
                    writer.write(wire.frame(head, len(body)) + body)
                    await writer.drain()

    async def _keep_alive(self) -> None:
        """Talk with one process after the other."""
        while True:
            assert self._process
            reader, self._writer = await asyncio.open_unix_connection(sock=self._process.channel)
            try:
                await self._talk(reader)
            finally:
                self.ready = False
                self._writer.close()
            ended = self._process
            if self.refusal and not self.about:
                return
            await self._bury(ended)
            await asyncio.sleep(_BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)])
            self._process = await self._again(ended)

    async def _again(self, ended: Spawned) -> Spawned:
        """Start another process; a machine that has no room for one now may have it later."""
        while True:
            try:
                return ended.again()
            except OSError as error:
                _log.error("cannot start a process", extra={"fields": {"model": self.name, "error": str(error)}})
                await asyncio.sleep(_BACK_OFF_S[-1])

    async def _talk(self, reader: asyncio.StreamReader) -> None:
        began_s = time.monotonic()
        said = await wire.receive(reader)
        if said is None:
            return
        if not said[0]["ready"]:
            self.refusal = Remote(said[0]["error"])
            self.first.set()
            if self.about:  # else whoever started us is told
                _log.error("the model cannot be loaded", extra={"fields": {"model": self.name, **said[0]["error"]}})
            return
        self._welcome(said[0], time.monotonic() - began_s)
        while said := await self._reply(reader):
            self._take(*said)

    async def _reply(self, reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes] | None:
        """The next message; a process that says nothing for too long while it has work is ended."""
        reading = asyncio.ensure_future(wire.receive(reader))
        try:
            while not (await asyncio.wait({reading}, timeout=_HANG_S / 4))[0]:
                oldest_s = min((asked.began_s for asked in self._running.values()), default=time.monotonic())
                if time.monotonic() - oldest_s > _HANG_S and self._process:
                    _log.error("the inference process hangs", extra={"fields": {"model": self.name}})
                    self._process.kill()
            return reading.result()
        finally:
            reading.cancel()

    def _welcome(self, about: dict[str, Any], start_s: float) -> None:
        self.about, self.ready, self.refusal, self._failures = about, True, None, 0
        self.name = about["model"]["name"]
        self._line.lanes = about["lanes"]
        self._metrics.loaded(about)
        fields = {key: about[key] for key in ("pid", "callers", "threads", "provider", "load_s", "warm_up_s")}
        _log.info("ready", extra={"fields": {"model": self.name, "start_s": round(start_s, 3), **fields}})
        self.first.set()
        if self.listener:
            self.listener.worker_ready(self)
        self._pump()

    def _take(self, head: dict[str, Any], body: bytes) -> None:
        if "stream" in head:
            if self.listener:
                self.listener.event(head, body)
            return
        asked = self._running.pop(head["id"], None)
        if asked is None:
            return
        spent = {"queue_ms": round(asked.waited_s * 1000, 2), **head["spent"]}
        lane_ms = spent.get("total_ms")
        self._line.done(lane_ms / 1000 if lane_ms else None)
        if not asked.future.done():
            if head["outcome"] == "done":
                asked.future.set_result(Answer(head["media_type"], body, spent))
            elif head["outcome"] == "failed":
                asked.future.set_exception(Remote(head["error"]))
        self._pump()

    async def _bury(self, process: Spawned) -> None:
        """The process is gone: say so to those it was looking for, and count."""
        self._process = self._writer = None
        code = await asyncio.to_thread(process.end, 5.0)
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        lost, self._running = list(self._running.values()), {}
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
        if self.listener:
            self.listener.worker_lost(self, how)
        self.restarts += 1
        self._failures += 1
        self._metrics.restarts.add(1, model=self.name)
        fields = {"model": self.name, "how": how, "lost": len(lost), "waiting": len(self._line)}
        _log.error("the inference process ended", extra={"fields": fields})
