"""Pilots as Indexed Jobs of a Kubernetes, without OSCAR.

Each time that pilots are missing, one more Job is created, with as many indexes as pilots are missing, and a number in
its name. Two coordinators that see the same Jobs create the same next one, so that one of them is told that it exists;
no one holds anything in memory, and whoever comes later finds the Jobs by their labels. Rejected: one Job that grows
(`completions` and `parallelism` can be raised together), because a Job whose indexes have all ended cannot grow any
more, so that further Jobs would be needed all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from buoy.batch.engines.kube_api import Exists, KubeApi
from buoy.batch.engines.kube_job import PilotJob, ended, unfinished, waiting
from buoy.batch.engines.kube_room import room
from buoy.batch.fit import Fit
from buoy.batch.naming import place_of

__all__ = ["KubernetesEngine"]

Value = TypeVar("Value")


class KubernetesEngine:
    """See the module.

    Args:
        api: the cluster, and the namespace.
        job: what all Jobs of the run have in common.
        fresh_s: nodes, quotas and pods are looked at again after so long; Jobs each time.
    """

    def __init__(self, api: KubeApi, job: PilotJob, *, fresh_s: float = 10.0) -> None:
        self._api, self._job = api, job
        self._room = _Kept(lambda: room(api, job.requests, job.selector), fresh_s)
        self._pods = _Kept(lambda: api.pods(job.selector), fresh_s)
        self._seen: set[str] = set()

    def fit(self) -> Fit:
        """How many pilots nodes and quotas have room for; what may not be seen sets no limit."""
        return self._room.read()

    def submit(self, number: int) -> None:
        """Create a Job of so many pilots, unless another coordinator has just done so."""
        last = max((self._job.number(each["metadata"]["name"]) for each in self._jobs()), default=0)
        with suppress(Exists):
            self._api.create_job(self._job.document(last + 1, number))

    def alive(self) -> int:
        """Pilots that run, or wait for a place, or are to be started again by Kubernetes."""
        return sum(unfinished(job) for job in self._jobs())

    def dead(self, names: Sequence[str]) -> list[str]:
        """Pilots whose pods have ended, or were there once and are not any more.

        A name that was never seen here may be that of a pilot of another cluster: its lease tells.
        """
        pods = self._pods.read()
        running = {place_of(pod["metadata"]["uid"]) for pod in pods if not ended(pod)}
        self._seen.update(place_of(pod["metadata"]["uid"]) for pod in pods)
        return [name for name in names if (host := name.partition(".")[0]) in self._seen and host not in running]

    def trouble(self) -> str:
        """What the pods that do not run are waiting for, each reason once."""
        reasons = {why for pod in self._pods.read() if (why := waiting(pod))}
        return f": {'; '.join(sorted(reasons))}" if reasons else f"; see: kubectl describe jobs -l {self._job.selector}"

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def cancel(self) -> None:
        """Delete the Jobs; their pods are told to end, and have half a minute to."""
        for job in self._jobs():
            self._api.delete_job(job["metadata"]["name"])

    def _jobs(self) -> list[dict[str, Any]]:
        return self._api.jobs(self._job.selector)


class _Kept(Generic[Value]):
    """What a call gave, for some seconds."""

    def __init__(self, call: Callable[[], Value], fresh_s: float) -> None:
        self._call, self._fresh_s = call, fresh_s
        self._found: tuple[float, Value] | None = None

    def read(self) -> Value:
        now_s = time.monotonic()
        if self._found is None or now_s - self._found[0] >= self._fresh_s:
            self._found = now_s, self._call()
        return self._found[1]
