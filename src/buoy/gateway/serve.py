"""The life of `buoy up`: the port, the node behind it, uvicorn in front, and an orderly end."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable
from types import FrameType

from buoy.errors import UsageError
from buoy.gateway.app import build
from buoy.gateway.auth import only_owner_reads
from buoy.gateway.node import Node, Settings
from buoy.web.listen import listen, url_of
from buoy.web.server import Server

__all__ = ["serve"]

_log = logging.getLogger(__name__)
#: In the data folder, while we run: where `buoy put` and the like find us.
_UP = "up.json"
#: How long open connections may take to end; live events end at once.
_GRACE_S = 3
_MESSAGE_LIMIT_BYTES = 64 << 20


def serve(settings: Settings, started: Callable[[Node, str], None]) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        settings: what was asked for.
        started: called with the node and its URL once requests are answered.

    Raises:
        UsageError: the port is taken, the host is not ours, or it is not safe to listen there.
    """
    listener = listen(settings.host, settings.port)
    with listener:
        port = listener.getsockname()[1]
        node = Node(settings, port)
        try:
            _refuse_unsafe(settings)
            node.start()
            _Server(node, lambda: _up(node, url_of(listener, settings.host), started)).run(sockets=[listener])
        finally:
            (settings.data / _UP).unlink(missing_ok=True)
            node.stop()


def _up(node: Node, url: str, started: Callable[[Node, str], None]) -> None:
    """Say where we are, to the commands of another terminal and to the caller."""
    note = node.settings.data / _UP
    part = note.with_suffix(".part")
    part.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    part.replace(note)
    started(node, url)


class _Server(Server):
    """Tells when it is up, and the node as soon as it is asked to stop."""

    def __init__(self, node: Node, started: Callable[[], None]) -> None:
        super().__init__(
            build(node), http="httptools", ws="websockets-sansio", ws_max_size=_MESSAGE_LIMIT_BYTES,
            timeout_graceful_shutdown=_GRACE_S,
        )  # fmt: skip
        self._node = node
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._node.exposed.start()
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let exposed services finish what they have accepted, then end."""
        await self._node.exposed.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._node.ask_to_stop()
        super().handle_exit(sig, frame)


def _refuse_unsafe(settings: Settings) -> None:
    """Beyond this machine only where the password is a secret."""
    credentials = settings.data / "credentials.yaml"
    if settings.loopback:
        return
    if not only_owner_reads(credentials):
        raise UsageError(
            f"{credentials} can be read by others on this machine, so listening on {settings.host} is refused",
            f"run: chmod 600 {credentials}",
        )
    _log.warning("listening on %s without TLS: put a proxy with TLS in front", settings.host)
