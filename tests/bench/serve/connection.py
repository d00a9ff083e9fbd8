"""The load generator's side of HTTP/1.1: many kept connections, bytes made beforehand, one epoll, nothing more."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Ask", "Clients"]

_now = time.perf_counter


@dataclass(slots=True, eq=False)
class Ask:
    """One request and what became of it; times in seconds of `time.perf_counter`, 0 for what did not happen."""

    due_s: float
    begun_s: float = 0.0
    #: Its last byte was handed to the kernel.
    sent_s: float = 0.0
    answered_s: float = 0.0
    #: 0 for one that was given up, -1 for a connection that broke.
    status: int = 0
    retry_after: bool = False
    #: Sent again on another connection, because the server had closed the kept one.
    again: bool = False


class _Connection:
    __slots__ = ("ask", "got", "link", "request", "unsent", "used")

    def __init__(self, address: tuple[str, int]) -> None:
        self.link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.link.setblocking(False)
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failed = self.link.connect_ex(address)
        if failed not in (0, errno.EINPROGRESS):
            raise OSError(failed, "cannot connect")
        self.ask: Ask | None = None
        self.request = b""
        self.unsent = memoryview(b"")
        self.got = bytearray()
        self.used = False


class Clients:
    """Sends requests and gathers answers; a connection is used again when its answer has been read.

    Args:
        host: of the server.
        port: of the server.
        patience_s: after it a request is given up and its connection closed, as a client that leaves.
    """

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        self._address = (host, port)
        self._patience_s = patience_s
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._waiting: deque[Ask] = deque()
        self._of: dict[int, _Connection] = {}
        self.open_most = 0

    @property
    def outstanding(self) -> int:
        """Requests that have no answer yet."""
        return len(self._of)

    def send(self, ask: Ask, request: bytes) -> None:
        """Begin to send."""
        ask.begun_s = _now()
        self._waiting.append(ask)
        self._start(ask, request)

    def poll(self, timeout_s: float) -> Iterator[Ask]:
        """Do what can be done, waiting at most so long; gives those that are over."""
        over: list[Ask] = []
        for number, events in self._poll.poll(max(0.0, timeout_s)):
            if connection := self._all.get(number):
                if events & select.EPOLLOUT and connection.ask:
                    self._write(connection)
                if events & ~select.EPOLLOUT and (ask := self._read(connection)):
                    over.append(ask)
        yield from over
        yield from self._give_up()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._all.values()):
            self._drop(connection)
        self._poll.close()

    def _start(self, ask: Ask, request: bytes, *, fresh: bool = False) -> None:
        connection = self._idle.pop() if self._idle and not fresh else None
        if connection is None:
            connection = _Connection(self._address)
            self._all[connection.link.fileno()] = connection
            self._poll.register(connection.link, select.EPOLLIN | select.EPOLLOUT)
            self.open_most = max(self.open_most, len(self._all))
        connection.ask, connection.request, connection.unsent = ask, request, memoryview(request)
        self._of[id(ask)] = connection
        if connection.used:
            self._write(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            while connection.unsent:
                connection.unsent = connection.unsent[connection.link.send(connection.unsent) :]
        except BlockingIOError:
            self._poll.modify(connection.link, select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            return  # reading finds out
        if connection.ask and not connection.ask.sent_s:
            connection.ask.sent_s = _now()
        self._poll.modify(connection.link, select.EPOLLIN)

    def _read(self, connection: _Connection) -> Ask | None:
        try:
            piece = connection.link.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        if not piece:
            return self._broken(connection)
        connection.got += piece
        head, parted, body = connection.got.partition(b"\r\n\r\n")
        if not parted or connection.ask is None:
            return None
        fields = head.lower().split(b"\r\n")
        length = next((int(field[15:]) for field in fields if field.startswith(b"content-length:")), None)
        if length is None:
            raise SystemExit(f"an answer without Content-Length: {bytes(head)!r}")
        if len(body) < length:
            return None
        ask = connection.ask
        ask.answered_s, ask.status = _now(), int(head[9:12])
        ask.retry_after = any(field.startswith(b"retry-after:") for field in fields)
        self._forget(ask)
        connection.ask, connection.used = None, True
        connection.got.clear()
        # answered before all was sent: what is left cannot be taken back, so the connection is of no more use
        if connection.unsent or b"connection: close" in fields:
            self._drop(connection)
        else:
            self._idle.append(connection)
        return ask

    def _broken(self, connection: _Connection) -> Ask | None:
        ask, used, request = connection.ask, connection.used and not connection.got, connection.request
        self._drop(connection)
        if ask is None:
            return None
        if used and not ask.again:
            ask.again = True
            self._start(ask, request, fresh=True)
            return None
        self._forget(ask)
        ask.answered_s, ask.status = _now(), -1
        return ask

    def _give_up(self) -> Iterator[Ask]:
        limit_s = _now() - self._patience_s
        while self._waiting and (self._waiting[0].begun_s < limit_s or self._waiting[0].answered_s):
            ask = self._waiting.popleft()
            if not ask.answered_s and (connection := self._of.get(id(ask))):
                self._forget(ask)
                self._drop(connection)
                yield ask

    def _forget(self, ask: Ask) -> None:
        self._of.pop(id(ask), None)

    def _drop(self, connection: _Connection) -> None:
        self._all.pop(connection.link.fileno(), None)
        if connection in self._idle:
            self._idle.remove(connection)
        connection.link.close()
