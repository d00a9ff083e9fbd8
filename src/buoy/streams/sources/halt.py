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
        self._wakes: list[Callable[[], None]] = []
        self._channels: list[socket.socket] = []

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
            for channel in self._channels:
                _shut(channel)
            wakes, self._wakes = self._wakes, []
        for wake in wakes:
            wake()

    def wakes(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when it is time to end, or now if it is; it must neither wait nor raise."""
        with self._lock:
            if not self._event.is_set():
                self._wakes.append(wake)
                return
        wake()

    def shuts(self, channel: socket.socket) -> None:
        """Let the end wake whoever waits for bytes of a socket."""
        with self._lock:
            # A descriptor of our own: a handshake takes the socket away from its object.
            self._channels.append(channel.dup())
            if self._event.is_set():
                _shut(self._channels[-1])

    def release(self) -> None:
        """The reading thread is done; to be called by it."""
        with self._lock:
            for channel in self._channels:
                channel.close()
            self._channels.clear()
            self._wakes.clear()


def _shut(channel: socket.socket) -> None:
    with suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)
