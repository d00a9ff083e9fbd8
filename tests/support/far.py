"""A store that is far away: a proxy on the loopback that holds every piece back for a while, both ways alike."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

__all__ = ["far_away"]


@contextlib.contextmanager
def far_away(port: int, delay_s: float) -> Iterator[str]:
    """The endpoint of a server on this machine as if it were `delay_s` away, there and back."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    sockets: list[socket.socket] = []
    threads = [threading.Thread(target=_accept, args=(listener, port, delay_s / 2, sockets), daemon=True)]
    threads[0].start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in [listener, *sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        threads[0].join()


def _accept(listener: socket.socket, port: int, delay_s: float, sockets: list[socket.socket]) -> None:
    while True:
        try:
            here, _ = listener.accept()
        except OSError:
            return
        there = socket.create_connection(("127.0.0.1", port))
        for each in (here, there):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets += [here, there]
        for one, other in ((here, there), (there, here)):
            pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            threading.Thread(target=_receive, args=(one, pieces, delay_s), daemon=True).start()
            threading.Thread(target=_send, args=(other, pieces), daemon=True).start()


def _receive(one: socket.socket, pieces: queue.SimpleQueue[tuple[float, bytes]], delay_s: float) -> None:
    data = b"."
    while data:
        try:
            data = one.recv(1 << 16)
        except OSError:
            data = b""
        pieces.put((time.monotonic() + delay_s, data))


def _send(other: socket.socket, pieces: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due_s, data = pieces.get()
        time.sleep(max(0.0, due_s - time.monotonic()))
        try:
            if not data:
                other.shutdown(socket.SHUT_WR)
                return
            other.sendall(data)
        except OSError:
            return
