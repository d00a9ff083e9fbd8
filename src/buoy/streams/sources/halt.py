"""How a thread that reads is told to end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Halt"]


class Halt:
    """An event that can also cut off what the reading thread waits for."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._cuts: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether it is time to end."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait so long at most; whether it is time to end."""
        return self._event.wait(timeout_s)

    def set(self) -> None:
        """End, from any thread."""
        with self._lock:
            self._event.set()
            cuts, self._cuts = self._cuts, []
        for cut in cuts:
            cut()

    def on_set(self, cut: Callable[[], None]) -> None:
        """Have `cut` called when it is time to end, or now if it is; it must neither wait nor raise."""
        with self._lock:
            if not self._event.is_set():
                self._cuts.append(cut)
                return
        cut()

    def shuts(self, channel: socket.socket) -> None:
        """Let the end wake whoever waits for bytes of a socket."""

        def cut() -> None:
            with suppress(OSError):
                # Of the plain socket below TLS: a goodbye would need the thread that is stuck.
                socket.socket.shutdown(channel, socket.SHUT_RDWR)

        self.on_set(cut)
