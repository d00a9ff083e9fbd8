"""The port of the gRPC service, in the event loop of the HTTP one."""

from __future__ import annotations

import os
from typing import Any

# Read when gRPC is imported: its lines on stderr are no JSON, and our processes are started without its knowledge.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

import grpc.aio

from buoy.errors import UsageError
from buoy.serve.rpc.calls import Calls
from buoy.serve.service import Service

__all__ = ["RpcServer"]

#: What a message holds besides the picture.
_MORE_BYTES = 64 << 10
#: Calls at once, waiting ones included; as many as wait in the line of a model, and some that ask how it is.
_MOST_CALLS = 256


class RpcServer:
    """Answers calls from `start` to `stop`.

    Args:
        service: what is served, and with which limits and certificate.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: Any = None

    async def start(self, host: str, port: int) -> str:
        """Take the port; returns the address.

        Raises:
            UsageError: it is taken, or the address is not ours.
        """
        server = grpc.aio.server(
            maximum_concurrent_rpcs=_MOST_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # else a second service would share the port unnoticed
                ("grpc.max_receive_message_length", self._service.settings.max_upload_bytes + _MORE_BYTES),
                ("grpc.max_concurrent_streams", _MOST_CALLS),
                ("grpc.max_metadata_size", 32 << 10),
            ],
        )
        server.add_generic_rpc_handlers((Calls(self._service),))
        shown = f"[{host}]" if ":" in host else host
        try:
            bound = self._bind(server, f"{shown}:{port}")
        except RuntimeError:
            raise UsageError(
                f"cannot listen on {host} port {port} for gRPC", "is it taken? choose another with --grpc-port"
            ) from None
        await server.start()
        self._server = server
        return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(shown, shown) }:{bound}"

    async def stop(self, patience_s: float) -> None:
        """Take no more calls, and finish those that are there."""
        if self._server is not None:
            await self._server.stop(patience_s)

    def _bind(self, server: Any, address: str) -> int:
        files = self._service.settings.certificate
        if files is None:
            return int(server.add_insecure_port(address))
        certificate, key = (file.read_bytes() for file in files)
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)])))
