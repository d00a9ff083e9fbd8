"""A stream of a running service from its first moment on, and all that it tells."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from support.live import socket
from support.serve import Served

__all__ = ["Followed", "balances", "following"]

#: Only catches what hangs. On a busy machine GStreamer's server may need 20 s until it sends its first picture.
_PATIENCE_S = 60.0


class Followed:
    """What was told, in its order; each message with the time at which it was heard, `heard_s`."""

    def __init__(self, served: Served, name: str) -> None:
        self.name = name
        self.messages: list[dict[str, Any]] = []
        self._served = served

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The messages about frames."""
        return [each for each in self.messages if each["event"] == "frame"]

    @property
    def states(self) -> list[str]:
        """The states that it was in, one after the other."""
        told = [each["state"] for each in self.messages if each["event"] == "state"]
        return [each for at, each in enumerate(told) if told[at - 1 : at] != [each]]

    @property
    def view(self) -> dict[str, Any]:
        """As the API shows it now."""
        return self._get("")

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """As the API lists them now."""
        found: list[dict[str, Any]] = self._get("/gaps")["gaps"]
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its time series by the minute, as it is now."""
        found: list[dict[str, Any]] = self._get("/series")["rows"]
        return found

    def reach(self, frames: int) -> None:
        """Wait until so many more frames were told of."""
        frames += len(self.frames)
        self._served.until(lambda: len(self.frames) >= frames, _PATIENCE_S)

    def is_in(self, state: str) -> None:
        """Wait until that is told as its state."""
        self._served.until(lambda: self.states[-1] == state, _PATIENCE_S)

    def settled(self) -> dict[str, Any]:
        """Its counts, once no frame is in flight, and all is told."""

        def settled() -> bool:
            counts = self.view["counts"]
            return not counts["in_flight"] and self.messages[-1].get("counts") == counts

        self._served.until(settled)
        counts: dict[str, Any] = self.view["counts"]
        return counts

    def _get(self, path: str) -> dict[str, Any]:
        with self._served.client() as http:
            found: dict[str, Any] = http.get(f"/streams/{self.name}{path}").json()
        return found


@contextmanager
def following(served: Served, name: str, **spec: Any) -> Iterator[Followed]:
    """Make a stream, and hear all that it tells until the block ends; then it is deleted."""
    stream = Followed(served, name)

    def hear(out: ClientConnection) -> None:
        try:
            for text in out:
                stream.messages.append({**json.loads(text), "heard_s": time.time()})
        except ConnectionClosed:
            pass

    with served.client() as http, ExitStack() as stack:
        with served.held():  # nothing is told before we listen
            assert http.post("/streams", json={"name": name, **spec}).status_code == 201
            out = stack.enter_context(socket(served, f"/streams/{name}/ws"))
            stream.messages.append({**json.loads(out.recv(timeout=30)), "heard_s": time.time()})
        thread = threading.Thread(target=hear, args=(out,))
        thread.start()
        try:
            yield stream
        finally:
            http.delete(f"/streams/{name}")  # which closes the connection
            thread.join()


def balances(counts: dict[str, Any]) -> bool:
    """Whether every frame that was received is accounted for, once."""
    return bool(counts["received"] == counts["processed"] + sum(counts["dropped"].values()) + counts["in_flight"])
