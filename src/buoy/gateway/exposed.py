"""All exposed services of a `buoy up`: one task that keeps each of them as its definition says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from buoy.errors import MissingError, UsageError
from buoy.gateway.dispatch import Dispatcher
from buoy.gateway.fleet import Fleet, Means, log_unexpected
from buoy.gateway.http import Unavailable
from buoy.gateway.processes import Limits
from buoy.gateway.services import Service

__all__ = ["Exposed"]

_LOOK_S = 0.25


class Exposed:
    """The fleets, by the names of their services.

    Args:
        services: all of them; changed by others.
        data: folder of `buoy up`.
        dispatcher: whose slots the instances share with the jobs.
        idle_s: an instance that is not needed leaves after so long without a request.
        notify: called when something has changed that people see.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        data: Path,
        dispatcher: Dispatcher,
        idle_s: float,
        notify: Callable[[], None],
    ) -> None:
        self._services = services
        self._notify = notify
        self._limits = Limits()
        self._means = Means(data, self._limits, dispatcher.hold, dispatcher.let_go, idle_s, self.wake, self._changed)
        self._fleets: dict[str, Fleet] = {}
        self._doomed: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = False
        #: Grows with every change that people see.
        self.changes = 0

    def fleet(self, name: str) -> Fleet:
        """The instances of a service. From the event loop, or for reading.

        Raises:
            MissingError: there is no such service.
            UsageError: it is not exposed.
            Unavailable: we are stopping.
        """
        service = self._services.get(name)
        if service is None:
            raise MissingError(f"there is no service {name!r}", "see /system/services")
        if service.exposure is None:
            raise UsageError(f"service {name} is not exposed", "give its definition an `expose` block with api_port")
        if self._closing:
            raise Unavailable("buoy up is stopping", "send it again once it runs", retry_after_s=5)
        found = self._fleets.get(name)
        if found is None:
            found = self._fleets[name] = Fleet(name, self._means)
        if found.service is not service:
            found.define(service)
        return found

    def look(self, name: str) -> Fleet | None:
        """The fleet of a service, if it has one already; from any thread, for reading."""
        return self._fleets.get(name)

    def wake(self) -> None:
        """Look at all services now; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def remove(self, name: str, *, delete_data: bool) -> None:
        """End the instances of a service that is gone; then remove what they kept, if so wished. From any thread."""
        if delete_data and name in self._fleets:
            self._doomed.add(name)
        self.wake()

    def start(self) -> None:
        """Keep them going, from now until `close`, in the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._closing:
            self._woken.clear()
            self._sync()
            for fleet in tuple(self._fleets.values()):
                try:
                    await fleet.step()
                except Exception as error:
                    log_unexpected(fleet.name, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._woken.wait()

    async def close(self) -> None:
        """Take no more requests, finish those that were accepted, end all instances."""
        self._closing = True
        self._woken.set()
        if self._task is not None:
            await self._task
        await asyncio.gather(*(fleet.end() for fleet in self._fleets.values()))

    def stop(self) -> None:
        """The rest, when the event loop is over."""
        self._limits.end_all("stop")
        self._limits.stop()

    def _sync(self) -> None:
        if self._closing:
            return
        for name, service in tuple(self._services.items()):
            if service.exposure is not None:
                self.fleet(name)
        for name, fleet in tuple(self._fleets.items()):
            now = self._services.get(name)
            if now is None or now.exposure is None:
                if fleet.service is not None:
                    fleet.define(None)
                if name in self._doomed:
                    fleet.delete_data = True
                    self._doomed.discard(name)
                if not fleet.instances:
                    fleet.forget()
                    del self._fleets[name]
                    self._changed()

    def _changed(self) -> None:
        self.changes += 1
        self._notify()
