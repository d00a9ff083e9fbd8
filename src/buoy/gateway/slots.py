"""How many jobs and instances run at once, and whose turn it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from buoy import machine
from buoy.gateway.services import Service

__all__ = ["Slots"]

#: Jobs that a resident worker gets beyond those it works on: their input is fetched and decoded meanwhile.
AHEAD = 2


class Slots:
    """The machine's cores and memory, handed out to jobs as the services' definitions ask for them.

    A job that asks for more than the machine has gets all of it. Not thread-safe: its owner locks.

    Args:
        workers: at most so many jobs at once, whatever they ask for.
    """

    def __init__(
        self, *, cpu_milli: int | None = None, memory_bytes: int | None = None, workers: int | None = None
    ) -> None:
        self.cpu_milli = cpu_milli or machine.cores() * 1000
        self.memory_bytes = memory_bytes or machine.memory_bytes()
        self.workers = workers
        self._running: Counter[str] = Counter()
        self._used_cpu: dict[str, int] = {}
        self._used_memory: dict[str, int] = {}
        self._lanes: dict[str, int] = {}
        self._held_cpu = self._held_memory = 0

    def lanes(self, service: Service) -> int:
        """How many jobs of the service fit on the machine when it has it for itself."""
        by_memory = self.memory_bytes // service.memory_bytes if service.memory_bytes else 2**31
        most = min(self.cpu_milli // service.cpu_milli, by_memory, self.workers or 2**31)
        return max(1, int(most))

    def running(self, service: str) -> int:
        """How many jobs of the service are in flight."""
        return self._running[service]

    def pick(self, due: Iterable[tuple[int, Service, bool]]) -> Service | None:
        """The service whose turn it is among (id of its next job, service, warm), or `None`: wait.

        The turn is that of the service which uses least, the oldest job deciding between equals. When
        its job does not fit, nobody else goes first: or a large job would wait for ever.
        """
        able = [entry for entry in due if self._running[entry[1].name] < self._limit(entry[1], warm=entry[2])]
        if not able:
            return None
        _, service, _ = min(able, key=lambda entry: (self._used_cpu.get(entry[1].name, 0), entry[0]))
        return service if self._fits(service) else None

    def take(self, service: Service) -> None:
        """Count a job in."""
        self._count(service, 1)

    def give(self, service: Service) -> None:
        """Count a job out."""
        self._count(service, -1)

    def hold(self, service: Service, *, must: bool) -> tuple[int, int] | None:
        """Count an instance of an exposed service in; returns what it holds, for `let_go`, or `None`: no room.

        Args:
            service: whose instance it is.
            must: it runs whatever else does (its definition says so, or somebody waits for it). Then it holds memory
                alone: most of the time it stands idle, and jobs need not leave a core to it.
        """
        cost = 0 if must else min(service.cpu_milli, self.cpu_milli), min(service.memory_bytes, self.memory_bytes)
        if not must:
            cpu = sum(self._used_cpu.values()) + self._held_cpu + cost[0]
            memory = sum(self._used_memory.values()) + self._held_memory + cost[1]
            if cpu > self.cpu_milli or memory > self.memory_bytes:
                return None
        self._held_cpu += cost[0]
        self._held_memory += cost[1]
        return cost

    def let_go(self, cost: tuple[int, int]) -> None:
        """Count an instance out."""
        self._held_cpu -= cost[0]
        self._held_memory -= cost[1]

    def _limit(self, service: Service, *, warm: bool) -> int:
        return self.lanes(service) + (AHEAD if warm else 0)

    def _fits(self, service: Service) -> bool:
        busy = sum(self._lanes.values())
        if not busy or self._running[service.name] >= self.lanes(service):
            return True  # nothing else runs, or the job only waits inside its worker
        if self.workers and busy >= self.workers:
            return False
        cpu = sum(self._used_cpu.values()) + self._held_cpu + min(service.cpu_milli, self.cpu_milli)
        memory = sum(self._used_memory.values()) + self._held_memory + min(service.memory_bytes, self.memory_bytes)
        return cpu <= self.cpu_milli and memory <= self.memory_bytes

    def _count(self, service: Service, change: int) -> None:
        self._running[service.name] += change
        lanes = min(self._running[service.name], self.lanes(service))
        self._lanes[service.name] = lanes
        self._used_cpu[service.name] = lanes * min(service.cpu_milli, self.cpu_milli)
        self._used_memory[service.name] = lanes * min(service.memory_bytes, self.memory_bytes)
