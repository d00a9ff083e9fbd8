"""The instances of one exposed service: as many as its definition, its callers and the machine ask for.

A new definition, or a restart, is a new generation: it takes over when one of it is ready, and the one before
finishes what it has accepted. Only where an instance keeps a state (streams), the old one ends first, and callers
wait: two of them would watch the same cameras. For the same reason such a service is never multiplied.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from buoy.errors import BuoyError, MissingError
from buoy.gateway.http import Unavailable
from buoy.gateway.instance import Instance
from buoy.gateway.joblog import RollingLog, tail
from buoy.gateway.processes import Limits
from buoy.gateway.services import Service

__all__ = ["Fleet", "Means"]

_log = logging.getLogger(__name__)

#: How long a caller waits for an instance that starts, and how many may.
WAIT_S = 30.0
_MOST_WAITING = 256
#: More requests than this per instance, or refusals (429), for so long, and another one is started.
_QUEUE, _BUSY_S = 4, 1.0
#: Pauses between starts of what ends by itself: none after the first time, then doubling.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
#: After so long a crash is one of its own, not the next of a series.
_STEADY_S = 30.0
#: So many ends in a row, and callers are told at once instead of waiting for the next start.
_HOPELESS = 3

_numbers = count(1)


@dataclass(frozen=True)
class Means:
    """What the fleets share."""

    #: Folder of `buoy up`.
    data: Path
    limits: Limits
    #: See `Slots.hold` and `Slots.let_go`.
    hold: Callable[..., tuple[int, int] | None]
    let_go: Callable[[tuple[int, int]], None]
    #: An instance that is not needed leaves after so long without a request.
    idle_s: float
    #: Something has to be looked at; something has changed that people see.
    wake: Callable[[], None]
    changed: Callable[[], None]


class Fleet:
    """The instances of one service. Lives in the event loop."""

    def __init__(self, name: str, means: Means) -> None:
        self.name = name
        self.service: Service | None = None
        self.instances: list[Instance] = []
        self.delete_data = False
        self.data = means.data / "exposed" / name
        self.log = RollingLog(means.data / "logs" / f"exposed-{name}.log")
        self._mark = means.data / "exposed" / f"{name}.stopped"
        self._means = means
        self._generation = 0
        self._scale = 0
        self._failures = 0
        self._reason = ""
        self._next_s = 0.0
        self._busy_s: float | None = None
        self._waiting = 0
        self._news = asyncio.Event()
        self._seen: tuple[Any, ...] = ()
        self._since = time.time()

    # What people ask of it

    def define(self, service: Service | None) -> None:
        """Run this from now on; `None` ends it."""
        self.service = service
        if service is not None and service.exposure is not None:
            self._scale = max(service.exposure.min_scale, min(self._scale, service.exposure.max_scale))
        self._anew()

    @property
    def stopped(self) -> bool:
        """Tells whether somebody stopped it; holds over a restart of `buoy up`."""
        return self._mark.exists()

    def stop(self) -> None:
        """End all instances until `start`."""
        self._mark.parent.mkdir(exist_ok=True)
        self._mark.touch()
        self._tell()

    def start(self) -> None:
        """Run again what was stopped."""
        if self.stopped:
            self._mark.unlink(missing_ok=True)
            self._anew()

    def restart(self) -> None:
        """Replace all instances by new ones, without a request failing."""
        self._mark.unlink(missing_ok=True)
        self._anew()

    def forget(self) -> None:
        """Nothing of it runs, and it is gone: leave nothing behind but its data, unless that goes too."""
        self._mark.unlink(missing_ok=True)
        if self.delete_data:
            shutil.rmtree(self.data, ignore_errors=True)

    async def choose(self, *, keeper: bool = False) -> Instance:
        """The instance with the least to do; waits for one that starts.

        Args:
            keeper: it must be the one that keeps the state.

        Raises:
            MissingError: the service is gone.
            Unavailable: there is none, and will be none soon.
        """
        end_s = time.monotonic() + WAIT_S
        while True:
            ready = self._ready(keeper=keeper)
            if ready:
                return min(ready, key=lambda instance: instance.load)
            self._refuse_hopeless()
            self._waiting += 1
            self._means.wake()
            try:
                async with asyncio.timeout(max(0.0, end_s - time.monotonic())):
                    await self._news.wait()
            except TimeoutError:
                hint = f"it takes longer than {WAIT_S:g} s: come again, or look at its log"
                raise Unavailable(f"service {self.name} is still starting", hint, retry_after_s=5) from None
            finally:
                self._waiting -= 1

    def _ready(self, *, keeper: bool) -> list[Instance]:
        if self.service is None or self.stopped:
            return []
        ready = [one for one in self.instances if one.state == "ready" and (one.data is not None or not keeper)]
        return [one for one in ready if one.generation == self._generation] or ready

    def _refuse_hopeless(self) -> None:
        if self.service is None:
            raise MissingError(f"there is no service {self.name!r}", "it was deleted")
        if self.stopped:
            hint = f"start it: POST /system/services/{self.name}/start"
            raise Unavailable(f"service {self.name} is stopped", hint, retry_after_s=30)
        if self._failures >= _HOPELESS:
            wait_s = max(1.0, self._next_s - time.monotonic())
            hint = f"it is tried again; its log: /system/services/{self.name}/deployment/logs"
            raise Unavailable(f"service {self.name} does not run: {self._reason}", hint, retry_after_s=wait_s)
        if self._waiting >= _MOST_WAITING:
            raise Unavailable(f"{self._waiting} requests wait for service {self.name} to start", retry_after_s=5)

    def status(self) -> dict[str, Any]:
        """State, reason and number of instances, in OSCAR's words (pkg/handlers/deployment.go)."""
        running = [one for one in self.instances if one.state != "ended"]
        ready = sum(one.state == "ready" for one in running)
        state, reason = self._state(ready)
        return {
            "state": state,
            "reason": reason,
            "since": self._since,
            "active_instances": len(running),
            "affected_instances": len(running) - ready,
        }

    def _state(self, ready: int) -> tuple[str, str]:
        if self.service is None or self.stopped:
            return "stopped", "it was stopped"
        if self._scale == 0:
            return "ready", "the first request starts an instance"
        if ready >= self._scale:
            return "ready", ""
        if ready:
            return "degraded", self._reason or f"{ready} of {self._scale} instances are ready"
        if self._failures >= _HOPELESS:
            return "failed", self._reason
        return "init", self._reason or "it is starting"

    # What has to be done

    async def step(self) -> None:
        """Look at all instances, and start and end what is needed for as many as there should be."""
        self._reap()
        current = [one for one in self.instances if one.alive and one.generation == self._generation]
        before = [one for one in self.instances if one.alive and one.generation != self._generation]
        wanted = self._wanted(current)
        keeps = self._keeps_state()
        if wanted == 0 or keeps or any(one.state == "ready" for one in current):
            for one in before:
                one.leave()
        for one in self._surplus(current, wanted):
            one.leave()
        occupied = keeps and any(one.data is not None and one.generation != self._generation for one in self.instances)
        if not occupied:
            for number in range(len(current), wanted):
                if time.monotonic() < self._next_s or not await self._launch(number, current):
                    break
        self._notice()

    async def end(self, *, now: bool = False) -> None:
        """End all instances; what was accepted is finished, unless it has to be `now`."""
        await asyncio.gather(*(one.leave(now=now) for one in self.instances if one.state != "ended"))
        self._reap()

    def _wanted(self, current: list[Instance]) -> int:
        if self.service is None or self.service.exposure is None or self.stopped:
            self._scale = 0
            return 0
        exposure, keeps = self.service.exposure, self._keeps_state()
        least = max(exposure.min_scale, int(self._waiting > 0 or keeps))
        most = 1 if keeps else exposure.max_scale
        ready = [one for one in current if one.state == "ready"]
        if self._crowded(ready):
            self._scale = len(current) + 1
        elif len(current) > least and any(one.idle_s > self._means.idle_s for one in ready):
            self._scale = len(current) - 1
        self._scale = min(max(self._scale, least), most)
        return self._scale

    def _crowded(self, ready: list[Instance]) -> bool:
        now = time.monotonic()
        refused = any(now - one.refused_s < _BUSY_S for one in ready)
        if not ready or (not refused and sum(one.load for one in ready) <= _QUEUE * len(ready)):
            self._busy_s = None
            return False
        self._busy_s = self._busy_s or now
        if now - self._busy_s < _BUSY_S:
            return False
        self._busy_s = now  # let the new one take its share before there is another
        return True

    def _surplus(self, current: list[Instance], wanted: int) -> list[Instance]:
        """Those that are too many: never one that something passes through, unless all have to go."""
        if wanted == 0:
            return current if self.service is None or self.stopped else [one for one in current if not one.passages]
        idle = sorted((one for one in current if not one.passages), key=lambda one: (one.data is None, one.idle_s))
        return idle[::-1][: max(0, len(current) - wanted)]

    async def _launch(self, number: int, current: list[Instance]) -> bool:
        service = self.service
        assert service is not None
        assert service.exposure is not None
        held = self._means.hold(service, must=number < max(1, service.exposure.min_scale))
        if held is None:
            self._scale = number  # the machine is full
            return False
        data = None if any(one.data is not None for one in current) else self.data
        folder = self._means.data / "work" / f"exposed-{self.name}-{next(_numbers)}"
        one = Instance(service, self._generation, folder, data, self.log, self._means.limits, self._tell)
        one.held = held
        self.instances.append(one)
        current.append(one)
        try:
            await one.start()
        except OSError as error:
            one.reason, one.state = f"it cannot be started: {error}", "ended"
            self._reap()
            return False
        return True

    def _reap(self) -> None:
        for one in [one for one in self.instances if one.state == "ended"]:
            self.instances.remove(one)
            if one.held is not None:
                self._means.let_go(one.held)
            if not one.asked_to_leave and one.generation == self._generation:
                self._failed(one)

    def _failed(self, one: Instance) -> None:
        now = time.monotonic()
        steady = one.ready_s is not None and now - one.ready_s > _STEADY_S
        self._failures = 1 if steady else self._failures + 1
        said = next((line for line in reversed(tail(self.log.path).splitlines()) if not line.startswith("buoy: ")), "")
        self._reason = f"{one.reason}: {said}" if said and one.ready_s is None else one.reason
        pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        self._next_s = now + pause_s
        _log.warning("service %s: %s; it starts again in %g s", self.name, self._reason, pause_s)

    def _keeps_state(self) -> bool:
        """Tells whether there are streams, or whatever else a script keeps in its folder."""
        service = self.service
        if service is None or service.exposure is None:
            return False
        if "BUOY_STREAMS" in service.variables:
            return True
        try:
            if not service.exposure.default_command:
                return any(self.data.iterdir())
            return bool(json.loads((self.data / "streams.json").read_bytes())["streams"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError):
            return True  # something is there that is to be kept

    def _anew(self) -> None:
        self._generation += 1
        self._failures, self._next_s, self._reason = 0, 0.0, ""
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
        self._means.wake()

    def _notice(self) -> None:
        """Clear what is over, and let people see what has changed."""
        steady = [one for one in self.instances if one.ready_s and time.monotonic() - one.ready_s > _STEADY_S]
        if self._failures and any(one.generation == self._generation for one in steady):
            self._failures, self._reason = 0, ""
        found = self.status()
        seen = tuple(found[key] for key in ("state", "reason", "active_instances", "affected_instances"))
        if seen != self._seen:
            if not self._seen or seen[0] != self._seen[0]:
                self._since = time.time()
            self._seen = seen
            self._means.changed()


def log_unexpected(name: str, error: Exception) -> None:
    """A fault while looking at a service: told, and the others go on."""
    if isinstance(error, BuoyError):
        _log.error("service %s: %s", name, error)
    else:
        _log.error("service %s", name, exc_info=error)
