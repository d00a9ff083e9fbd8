"""One inference process, and the talk with it: what it was sent, what it says, how it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from buoy.errors import BuoyError, as_buoy_error
from buoy.serve.channel import Channel, message
from buoy.serve.refusals import Remote
from buoy.serve.spawn import Spawned

__all__ = ["Answer", "Asked", "Question", "Worker"]

_log = logging.getLogger("buoy.serve")

#: One picture that keeps a lane for longer is taken for a hang, and the process is ended.
_HANG_S = 120.0


class Question(NamedTuple):
    """A picture, and what is asked about it."""

    picture: IO[bytes]
    name: str
    form: str = "json"
    #: `score` and `iou`, where they differ from the manifest's.
    thresholds: dict[str, float] = {}  # noqa: RUF012 - never changed
    deadline_s: float = 10.0


class Answer(NamedTuple):
    """The encoded answer, and the version of the model that gave it."""

    media_type: str
    body: bytes
    spent: dict[str, float]
    version: str


class Asked:
    """A question on its way."""

    def __init__(self, number: int, question: Question, future: asyncio.Future[Answer]) -> None:
        self.number = number
        self.question = question
        self.future = future
        self.began_s = time.monotonic()
        #: When its turn has to have come, on the clock of `time.monotonic()`.
        self.expires_s = self.began_s + question.deadline_s
        self.waited_s = 0.0


class Worker:
    """One process from its start to its end.

    Args:
        spawned: the process, which is loading already.
        name: of the model, for the log.
        answered: told of each answer: its head, its body, and the question it belongs to; of what it says about
            streams, with `None` for the question.
    """

    def __init__(
        self, spawned: Spawned, name: str, answered: Callable[[dict[str, Any], bytes, Asked | None], None]
    ) -> None:
        self.spawned = spawned
        #: What it said of itself and its model; empty until it is ready.
        self.about: dict[str, Any] = {}
        self.ready = False
        self.refusal: BuoyError | None = None
        #: Another process has taken its place: what it still says of streams is of no interest.
        self.replaced = False
        #: What it is looking at.
        self.running: dict[int, Asked] = {}
        self.start_s = 0.0
        #: Set when it is ready, has refused or is gone.
        self.begun = asyncio.Event()
        self._name = name
        self._answered = answered
        self._channel: Channel | None = None

    async def live(self, ready: Callable[[Worker], None]) -> None:
        """Talk with it until it ends or refuses; `ready` is called when it can be asked."""
        began_s = time.monotonic()

        def heard(head: dict[str, Any], body: bytes) -> None:
            if "ready" not in head:
                self._take(head, body)
            elif head["ready"]:
                self.about, self.ready, self.start_s = head, True, time.monotonic() - began_s
                ready(self)
                self.begun.set()
            else:
                self.refusal = Remote(head["error"])

        loop = asyncio.get_running_loop()
        _, self._channel = await loop.create_unix_connection(lambda: Channel(heard), sock=self.spawned.channel)
        try:
            await self._watch(self._channel)
        finally:
            self.ready = False
            self.begun.set()
            self._channel.close()

    def send(self, asked: Asked) -> None:
        """Have it look at a picture."""
        self.running[asked.number] = asked
        asked.began_s = time.monotonic()
        if self._channel:
            self._channel.send(self._pieces(asked))

    def cancel(self, asked: Asked) -> None:
        """Nobody waits for that one any more."""
        if asked.number in self.running:
            self.say({"op": "cancel", "id": asked.number})

    def say(self, head: dict[str, Any], body: bytes = b"") -> None:
        """One message that is not answered."""
        if self._channel:
            self._channel.send(message(head, body))

    async def finish(self) -> None:
        """Wait until all that it looks at is answered, or it is gone."""
        while self.running and self.ready:
            await asyncio.sleep(0.02)

    async def end(self, patience_s: float = 5.0) -> str:
        """Ask it to leave, and make it leave; says how it went."""
        if self._channel:
            self._channel.close()
        code = await asyncio.to_thread(self.spawned.end, patience_s)
        return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"

    async def pass_on(self, head: dict[str, Any], body: bytes) -> None:
        """As `say`, and wait until it is on its way."""
        if self._channel:
            await self._channel.pass_on(message(head, body))

    def _pieces(self, asked: Asked) -> Iterator[bytes | memoryview]:
        """A question as a message, made when its turn has come."""
        question = asked.question
        if question.picture.closed:  # the client has gone meanwhile
            self._take({"id": asked.number, "outcome": "cancelled", "spent": {}}, b"")
            return
        try:
            question.picture.seek(0)
            data = question.picture.read()  # all of it, as it may be closed while a part of it waits
        except OSError as error:  # a large one waits on disk
            told = as_buoy_error(error, question.name)
            self._take({"id": asked.number, "outcome": "failed", "error": told.record(), "spent": {}}, b"")
            return
        head = {"op": "look", "id": asked.number, "name": question.name, "form": question.form}
        head |= {"expires_s": asked.expires_s, **question.thresholds}
        yield from message(head, data)

    async def _watch(self, channel: Channel) -> None:
        """Wait for its end; a process that says nothing for too long while it has work is ended."""
        over = asyncio.ensure_future(channel.over.wait())
        try:
            while not (await asyncio.wait({over}, timeout=_HANG_S / 4))[0]:
                oldest_s = min((asked.began_s for asked in self.running.values()), default=time.monotonic())
                if time.monotonic() - oldest_s > _HANG_S:
                    _log.error("the inference process hangs", extra={"fields": {"model": self._name}})
                    self.spawned.kill()
        finally:
            over.cancel()

    def _take(self, head: dict[str, Any], body: bytes) -> None:
        if "stream" in head:
            if not self.replaced:
                self._answered(head, body, None)
        elif asked := self.running.pop(head["id"], None):
            self._answered(head, body, asked)
