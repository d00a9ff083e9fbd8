"""Pictures sent into a stream, and what comes out of it."""

from __future__ import annotations

import json
import socket as sockets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import httpx2
from websockets.sync.client import ClientConnection, connect

from support.serve import Served

__all__ = ["Pushing", "events_of", "hanging", "parts_of", "pushing", "socket"]


class _Reached(Protocol):
    """Has an address."""

    @property
    def url(self) -> str: ...


def socket(served: _Reached, path: str, **settings: Any) -> ClientConnection:
    """A WebSocket to the service."""
    found: ClientConnection = connect(f"ws{served.url.removeprefix('http')}{path}", compression=None, **settings)
    return found


class Pushing(NamedTuple):
    """A client that sends pictures."""

    #: When each was sent, in seconds since 1970.
    sent: list[float]
    #: Send no more; after this `sent` stays as it is.
    stop: Callable[[], None]


@contextmanager
def pushing(
    served: _Reached, stream: str, *pictures: bytes, pause_s: float = 0.02, dated: bool = False, **settings: Any
) -> Iterator[Pushing]:
    """A camera: sends the pictures in turn, until the block ends; comes back when its connection is cut.

    Args:
        served: where to.
        stream: its name.
        pictures: JPEG files.
        pause_s: from one to the next.
        dated: whether it says of each when it was taken.
        settings: of the connection.
    """
    over, sent = threading.Event(), list[float]()

    def send() -> None:
        while not over.is_set():
            try:
                with socket(served, f"/streams/{stream}/push", **settings) as out:
                    due_s = time.monotonic()
                    while not over.is_set():
                        for picture in pictures:
                            due_s += pause_s
                            now_s = time.time()
                            if dated:
                                out.send(json.dumps({"captured": datetime.fromtimestamp(now_s, UTC).isoformat()}))
                            out.send(picture)
                            sent.append(now_s)
                            time.sleep(max(0.0, due_s - time.monotonic()))
            except Exception:
                time.sleep(0.1)

    def stop() -> None:
        over.set()
        thread.join()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield Pushing(sent, stop)
    finally:
        stop()


@contextmanager
def hanging(served: Served, path: str) -> Iterator[None]:
    """A viewer that asks, and then takes nothing."""
    connection = sockets.socket()
    connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 1024)
    with connection:
        connection.connect(served.address)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield


def events_of(http: httpx2.Client, stream: str, **headers: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, name and data of each server-sent event."""
    with http.stream("GET", f"/streams/{stream}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            key, _, value = line.partition(": ")
            if line:
                fields[key] = value
            elif "data" in fields:
                yield fields.pop("id", ""), fields["event"], json.loads(fields.pop("data"))


def parts_of(answer: httpx2.Response) -> Generator[bytes, None, None]:
    """The pictures of a multipart/x-mixed-replace body, each as soon as it is whole."""
    boundary = b"\r\n--" + answer.headers["content-type"].partition("boundary=")[2].encode() + b"\r\n"
    held = b""
    for piece in answer.iter_raw():
        *parts, held = (held + piece).split(boundary)
        yield from (picture for _, _, picture in (part.partition(b"\r\n\r\n") for part in parts) if picture)
