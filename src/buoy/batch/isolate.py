"""The network in a child process, so that what kills it is found out and costs nothing else.

The pilot knows what it has sent and has no answer to. When the child ends, those inputs that it had begun are tried
again, each alone in a fresh child: whichever ends that one too is a failed input, and all others are well.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import psutil

from buoy import wire
from buoy.errors import JobError

__all__ = ["Child", "Event", "load_error"]


class Event(NamedTuple):
    """Something that a child said, or that happened to it: `ready`, `reply`, `ended`."""

    kind: str
    child: Child
    head: dict[str, Any]
    body: bytes = b""


class Child:
    """One process with the model, from its start to its end.

    Args:
        model: folder of the model.
        cores: see `Engine.open`.
        events: where everything that it says goes.
    """

    def __init__(self, model: Path, cores: int | None, events: SimpleQueue[Event | None]) -> None:
        self._process, self._channel = wire.start("buoy.batch.child", str(model), cores)
        self._events = events
        #: Inputs that it works on at once; 0 until it is ready.
        self.lanes = 0
        threading.Thread(target=self._listen, name="child", daemon=True).start()

    def send(self, head: dict[str, Any], body: bytes) -> None:
        """Give it an input. Whether it lives to look at it, an event tells."""
        with suppress(OSError):
            wire.send(self._channel, head, body)

    def kill(self) -> None:
        """End it now; the event comes as for every end."""
        self._process.kill()

    def close(self) -> None:
        """End it, and wait for that."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    @property
    def rss_bytes(self) -> int:
        """The memory that it has."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def how(self) -> str:
        """How it ended, in words that are the same each time."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "was killed, as when memory runs out"
        return f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _listen(self) -> None:
        with suppress(OSError), self._channel.makefile("rb") as stream:
            while message := wire.read(stream):
                head, body = message
                if "ready" in head:
                    self.lanes = head.get("lanes", 0)
                    self._events.put(Event("ready", self, head))
                else:
                    self._events.put(Event("reply", self, head, body))
        self._events.put(Event("ended", self, {}))


def load_error(head: dict[str, Any]) -> JobError:
    """Why a child could not load the model."""
    error = head["error"]
    return JobError(f"the model cannot be loaded: {error['message']}", error["hint"])
