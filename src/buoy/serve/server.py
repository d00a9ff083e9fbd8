"""The life of the service: uvicorn in front, the models behind, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from buoy.errors import BuoyError
from buoy.serve import log
from buoy.serve.app import App
from buoy.serve.connection import Connection, open_socket
from buoy.serve.metrics import Metrics
from buoy.serve.remote import Looker
from buoy.serve.service import Service
from buoy.serve.settings import Settings
from buoy.serve.spawn import Spawned
from buoy.web.server import Server

if TYPE_CHECKING:
    from buoy.serve.rpc.server import RpcServer

__all__ = ["run"]

_log = logging.getLogger("buoy.serve")

#: How long what was accepted may take after SIGTERM; Kubernetes kills after 30 s.
_DRAIN_S = 25


def run(
    settings: Settings,
    processes: Sequence[Spawned],
    listener: socket.socket,
    names: Sequence[str],
    started: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what was asked for.
        processes: one for each model, loading already.
        listener: the port.
        names: user names that go with the token in Basic.
        started: called when every model is ready, with the address for gRPC, if there is one.

    Raises:
        BuoyError: a model cannot be loaded.
    """
    log.start()
    metrics = Metrics()
    lookers = [Looker(process, max_wait_s=settings.max_wait_s, metrics=metrics) for process in processes]
    service = Service(settings, lookers, metrics, names)
    service.prepare_live()
    server = _Server(service, started)
    server.run(sockets=[listener])
    for looker in lookers:
        if looker.refusal and not looker.about:
            raise looker.refusal


class _Server(Server):
    """Starts and ends the models with itself."""

    def __init__(self, service: Service, started: Callable[[str], None]) -> None:
        certificate, key = service.settings.certificate or (None, None)
        super().__init__(
            _application(service),
            loop="asyncio",
            http=Connection,
            ws=open_socket,
            ws_max_size=service.settings.max_upload_bytes,
            ws_per_message_deflate=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_DRAIN_S,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._service = service
        self._started = started
        self._first: asyncio.Task[None] | None = None
        self._rpc: RpcServer | None = None
        self._rpc_address = ""
        self._reloading: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; whether the models are ready is another question."""
        if (port := self._service.settings.grpc_port) is not None:
            from buoy.serve.rpc.server import RpcServer  # an extra, and slow to import

            self._rpc = RpcServer(self._service)
            self._rpc_address = await self._rpc.start(self._service.settings.host, port)
        for looker in self._service.lookers:
            looker.start()
        self._service.start_live()
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        self._first = asyncio.create_task(self._tell())

    def _hang_up(self) -> None:
        """As for other services, SIGHUP means that what is on disk has changed."""
        self._reloading = asyncio.create_task(self._reload())

    async def _tell(self) -> None:
        for looker in self._service.lookers:
            await looker.first.wait()
        if any(looker.refusal for looker in self._service.lookers):
            self.should_exit = True
        else:
            self._started(self._rpc_address)

    async def _reload(self) -> None:
        """Load every model's folder again, one after the other."""
        for looker in self._service.lookers:
            try:
                await looker.replace()
            except BuoyError as error:
                _log.error("not replaced", extra={"fields": {"model": looker.name, **error.record()}})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted, then end the models."""
        self._service.draining = True
        stopping = asyncio.create_task(self._rpc.stop(_DRAIN_S)) if self._rpc else None
        await asyncio.gather(super().shutdown(sockets), self._service.close_live())
        if stopping:
            await stopping
        if self._first:
            self._first.cancel()
        for looker in self._service.lookers:
            await looker.close()
        if self._service.tracing:
            await asyncio.to_thread(self._service.tracing.close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not ready from now on."""
        self._service.draining = True
        super().handle_exit(sig, frame)


def _application(service: Service) -> ASGIApp:
    if not service.settings.cors:
        return App(service)
    from buoy.serve.cors import for_origins

    return for_origins(App(service), service.settings.cors)
