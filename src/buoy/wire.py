"""Messages between two of our processes over a socket: a head of JSON, and bytes.

Eight bytes (little-endian: the length of the head, and that of the body), the head, the body: a picture on its way in,
an encoded answer on its way out.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

__all__ = ["Cutter", "Message", "frame", "pair", "read", "send", "start"]

Message = tuple[dict[str, Any], bytes]

_LENGTHS = struct.Struct("<II")
_BUFFER_BYTES = 4 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, with room for most pictures, so that they go through at once; the kernel may allow less."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


def start(module: str, model: str, number: int | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start `python -m MODULE MODEL FD [NUMBER]`, FD its end of a socket; gives the process and our end."""
    ours, theirs = pair()
    command = [sys.executable, "-m", module, model, str(theirs.fileno()), *([str(number)] if number else [])]
    with theirs:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    return process, ours


def frame(head: dict[str, Any], size_bytes: int = 0) -> bytes:
    """All but the body of a message; the body's `size_bytes` follow."""
    text = json.dumps(head, ensure_ascii=False).encode()
    return _LENGTHS.pack(len(text), size_bytes) + text


def send(channel: socket.socket, head: dict[str, Any], body: bytes = b"") -> None:
    """Send a message over a blocking socket; in one piece, as each wakes the other process, unless that costs memory.

    Raises:
        OSError: the other process is gone.
    """
    begin = frame(head, len(body))
    if len(body) <= _BUFFER_BYTES:
        channel.sendall(begin + body)
    else:
        channel.sendall(begin)
        channel.sendall(body)


def read(stream: BinaryIO) -> Message | None:
    """The next message of a blocking stream; `None` at its end."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack(lengths)
    text, data = stream.read(head), stream.read(body)
    return (json.loads(text), data) if len(data) == body else None


class Cutter:
    """Cuts what comes, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._came = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole with this piece."""
        self._came += data
        while message := self._cut():
            yield message

    def _cut(self) -> Message | None:
        if len(self._came) < _LENGTHS.size:
            return None
        head, body = _LENGTHS.unpack_from(self._came)
        begin = _LENGTHS.size + head
        if len(self._came) < begin + body:
            return None
        message = json.loads(self._came[_LENGTHS.size : begin]), bytes(memoryview(self._came)[begin : begin + body])
        del self._came[: begin + body]
        return message
