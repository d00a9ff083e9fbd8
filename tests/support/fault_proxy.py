"""A proxy before a store that knows what it carries: faults by method, key and chance, the same for the same seed."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = [
    "FORGETS_CONDITIONS", "LOSES_REPLY", "PASSES", "STALE", "Action", "FaultProxy", "Request", "cut",
    "fault_proxy", "refuses",
]  # fmt: skip

_LEDGER = "/.runs/"
_MESSAGE = "<Error><Code>{}</Code><Message>made up by the proxy</Message></Error>"


class Action(NamedTuple):
    """What happens to a request."""

    name: str
    status: int = 0
    code: str = ""
    #: Of the reply's body so many parts in a hundred arrive.
    percent: int = 100


PASSES = Action("passes")
#: It is forwarded; the connection ends instead of a reply.
LOSES_REPLY = Action("loses reply")
#: The reply to the same listing of before is given again, if there was one.
STALE = Action("stale")
#: It arrives without its conditions, as at a store that does not know them.
FORGETS_CONDITIONS = Action("forgets conditions")


def refuses(status: int, code: str) -> Action:
    """It is not forwarded, but answered so."""
    return Action("refuses", status, code)


def cut(percent: int) -> Action:
    """Its reply ends early."""
    return Action("cut", percent=percent)


class Request(NamedTuple):
    """What a rule decides by."""

    method: str
    #: In the bucket.
    key: str
    #: Whether it is a listing, and then of what prefix.
    lists: str | None
    #: Of the ledger: the first part of its name, such as `fin`, or the file itself; else empty.
    kind: str


Rule = Callable[[Request, Random], Action]


class FaultProxy:
    """See the module. One thread with a loop of its own; connections are served one request each.

    Args:
        port: of the store.
        keys: its access key and secret, to sign again what is changed.
        seed: of the chances.
    """

    def __init__(self, port: int, keys: tuple[str, str], seed: int = 1) -> None:
        self.rule: Rule = lambda _, __: PASSES
        #: How often each action was met by each kind of request: (action, method, kind).
        self.met: Counter[tuple[str, str, str]] = Counter()
        self._upstream, self._keys, self._random = port, keys, Random(seed)
        self._listings: dict[str, bytes] = {}
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve until it is stopped."""
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """End it with its connections."""
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await self._exchange(reader, writer)
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        known = {name.lower(): value for name, value in headers}
        if known.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(known.get("content-length") or 0))
        request = _request(method, target)
        action = self.rule(request, self._random)
        self.met[action.name, method, request.kind or ("list" if request.lists is not None else "object")] += 1
        if action.name == "refuses":
            writer.write(_refusal(action, method))
        elif action is STALE and target in self._listings:
            writer.write(self._listings[target])
        else:
            if action is FORGETS_CONDITIONS:
                headers = self._signed_again(method, target, headers, body)
            reply = await self._forward(f"{method} {target} HTTP/1.1", headers, body)
            if request.lists is not None:
                self._listings[target] = reply
            if action is LOSES_REPLY:
                return
            if action.name == "cut":
                split = reply.index(b"\r\n\r\n") + 4
                reply = reply[: split + (len(reply) - split) * action.percent // 100]
            writer.write(reply)
        await writer.drain()

    async def _forward(self, line: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
        """The whole reply of the store, which is told to end the connection after it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            kept = [f"{name}: {value}" for name, value in headers if name.lower() not in ("expect", "connection")]
            asks = ["Expect: 100-continue"] if body else []
            writer.write("\r\n".join([line, *kept, *asks, "Connection: close", "", ""]).encode("latin-1"))
            reply = b""
            if body:  # a store that refuses it does not read it, and ends the connection
                reply = await reader.readuntil(b"\r\n\r\n")
                if reply.startswith(b"HTTP/1.1 100"):
                    writer.write(body)
                    reply = b""
            return reply + await reader.read()
        finally:
            writer.close()

    def _signed_again(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> list[tuple[str, str]]:
        """The headers without conditions, which were part of the signature."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        conditions = ("if-none-match", "if-match")
        if not any(name.lower() in conditions for name, _ in headers):
            return headers
        left = ("authorization", "x-amz-date", "expect", *conditions)
        kept = {name: value for name, value in headers if name.lower() not in left}
        request = AWSRequest(method, f"http://{kept['Host']}{target}", headers=kept, data=body)
        S3SigV4Auth(Credentials(*self._keys), "s3", "us-east-1").add_auth(request)
        return [(str(name), str(value)) for name, value in request.headers.items()]


def _request(method: str, target: str) -> Request:
    parts = urlsplit(target)
    key = unquote(parts.path).lstrip("/").partition("/")[2]
    found = parse_qs(parts.query, keep_blank_values=True)
    lists = found.get("prefix", [""])[0] if "list-type" in found else None
    _, ledger, name = f"/{key if lists is None else lists}".partition(_LEDGER)
    return Request(method, key, lists, name.partition("/")[2].partition("/")[0] if ledger else "")


def _refusal(action: Action, method: str) -> bytes:
    body = b"" if method == "HEAD" else _MESSAGE.format(action.code).encode()
    head = f"HTTP/1.1 {action.status} Refused\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


@contextmanager
def fault_proxy(port: int, keys: tuple[str, str], seed: int = 1) -> Iterator[FaultProxy]:
    """A proxy for the length of a block."""
    proxy = FaultProxy(port, keys, seed)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
