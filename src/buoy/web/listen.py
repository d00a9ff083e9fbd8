"""Takes a port."""

from __future__ import annotations

import errno
import socket

from buoy.errors import UsageError

__all__ = ["listen", "url_of"]


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else is done, so that a taken one leaves nothing behind.

    Raises:
        UsageError: it is taken, or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer may wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} on {host} is taken", "stop what uses it, or choose another with --port"
            ) from None
        raise UsageError(f"cannot listen on {host} port {port}: {error}", "see --host and --port") from None
    return listener


def url_of(listener: socket.socket, host: str, scheme: str = "http") -> str:
    """Where to reach it from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"
