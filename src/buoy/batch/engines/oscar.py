"""Pilots as asynchronous jobs of an OSCAR service (`fdl/<model>/batch.yaml`).

A job's name says whose it is, so another coordinator finds the same jobs. Whether a pilot lives is told by its
heartbeat; only for those that have none, or whose heartbeat stands still, is the cluster asked, and at most once a
minute: each page of its list of jobs costs it one question to Kubernetes for each job.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from secrets import token_hex
from typing import NamedTuple

from buoy.batch.engines.oscar_api import OscarApi, Refused
from buoy.batch.engines.oscar_room import need_of, room
from buoy.batch.fit import Fit
from buoy.batch.naming import place_of
from buoy.batch.pointer import Pointer
from buoy.errors import JobError
from buoy.manifest import Needs

__all__ = ["Beats", "OscarEngine"]

_ENDED = ("Succeeded", "Failed")
#: So many pilots that ended without having begun, and no other that has begun: something is wrong with all of them.
_STILLBORN = 4
#: Then it is tried again after so long, and after twice as long each time.
_RETRY_S, _RETRY_MOST_S = 60.0, 1800.0


class Beats(NamedTuple):
    """What the ledger tells of pilots: the etag of each one's heartbeat by its name, and who has said good-bye."""

    etags: Mapping[str, str]
    gone: Iterable[str]


class OscarEngine:
    """See the module.

    Args:
        api: the cluster and the service.
        pilot: the pointer that all pilots of the run get, but for their number.
        needs: of one pilot.
        beats: reads what the ledger tells of pilots.
        fresh_s: jobs are looked at again after so long, what is free after a sixth of it.
    """

    def __init__(
        self, api: OscarApi, pilot: Pointer, needs: Needs, beats: Callable[[], Beats], *, fresh_s: float = 60.0
    ) -> None:
        self._api, self._pilot, self._need, self._beats, self._fresh_s = api, pilot, need_of(needs), beats, fresh_s
        place = hashlib.sha256(f"{pilot.out}\n{pilot.run}".encode()).hexdigest()[:10]
        self._prefix = f"{api.service[:24].strip('-')}-{place}-"
        #: Jobs of the run that are not known to have ended, and the first part of their pilots' names; and those that
        #: have ended.
        self._open: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        self._begun: set[str] = set()
        self._gone: set[str] = set()
        self._last: Mapping[str, str] = {}
        self._listed_s = self._seen_s = self._asked_s = self._failed_s = float("-inf")
        self._stillborn = self._tries = 0
        self._room = Fit(0)

    def submit(self, number: int) -> None:
        """Start so many more jobs."""
        self._hold_back()
        for _ in range(number):
            name = f"{self._prefix}{token_hex(6)}"
            self._open[name] = place_of(name)  # before it is asked for: the answer may be lost
            try:
                self._api.submit(self._pilot._replace(pilot=name).encode(), name)
            except Refused as refused:
                if not refused.retry:
                    del self._open[name]
                raise

    def alive(self) -> int:
        """Jobs of the run that run, or wait for a place."""
        self._look()
        return len(self._open)

    def fit(self) -> Fit:
        """How many pilots nodes and quotas have room for, those included that have begun."""
        self._look()
        now_s = time.monotonic()
        if now_s - self._asked_s >= self._fresh_s / 6:
            self._room, self._asked_s = room(self._api.status(), self._api.quota(), self._need), now_s
        ours = sum(host in self._begun for host in self._open.values())
        return Fit(self._room.pilots + ours, self._room.why)

    def dead(self, names: Sequence[str]) -> list[str]:
        """Pilots whose jobs have ended. A name that is not of our jobs is that of a pilot of another engine."""
        self._look()
        ended = set(self._ended.values())
        return [name for name in names if name.partition(".")[0] in ended]

    def trouble(self) -> str:
        """Where to look."""
        return f"; see: oscar-cli service logs list {self._api.service}"

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def cancel(self) -> None:
        """Delete the jobs of the run one by one."""
        self._listed_s = float("-inf")
        self._list()
        for name in list(self._open):
            self._api.remove(name)

    def _look(self) -> None:
        """See who has begun and who has left; ask the cluster about the others, if that is due."""
        now_s = time.monotonic()
        if now_s - self._seen_s < self._fresh_s / 60:
            return
        self._seen_s = now_s
        beats = self._beats()
        begun = {name.partition(".")[0] for name in beats.etags}
        if begun - self._begun:
            self._stillborn = self._tries = 0
        self._begun |= begun
        self._gone = {name.partition(".")[0] for name in beats.gone}
        self._end(name for name, host in self._open.items() if host in self._gone)
        if now_s - self._listed_s < self._fresh_s:
            return
        moving = {name.partition(".")[0] for name, etag in beats.etags.items() if self._last.get(name) != etag}
        if self._listed_s == float("-inf") or set(self._open.values()) - moving:
            self._list()
        self._last, self._listed_s = dict(beats.etags), now_s

    def _list(self) -> None:
        """Ask for the jobs, the first time for all, then until ours were found: finished ones stay in it for a month.

        One of ours that is not there any more has been deleted. Who has said good-bye may still be ending.
        """
        first, missing, states = self._listed_s == float("-inf"), set(self._open), dict[str, str]()
        for name, state in self._api.jobs():
            if name.startswith(self._prefix):
                states[name] = state
                missing.discard(name)
            if not first and not missing:
                break
        for name, state in states.items():
            host = place_of(name)
            if state in _ENDED or host in self._gone:
                self._ended.setdefault(name, host)
            else:
                self._open.setdefault(name, host)
        self._end(name for name in self._open if name in missing or states.get(name) in _ENDED)

    def _end(self, names: Iterable[str]) -> None:
        for name in list(names):
            host = self._open.pop(name)
            self._ended[name] = host
            if host not in self._begun:
                self._stillborn, self._failed_s = self._stillborn + 1, time.monotonic()

    def _hold_back(self) -> None:
        """Do not start one pilot after the other that ends before it has begun."""
        if self._stillborn < _STILLBORN:
            return
        wait_s = min(_RETRY_S * 2**self._tries, _RETRY_MOST_S) * self._fresh_s / 60
        if time.monotonic() - self._failed_s < wait_s:
            raise JobError(
                f"{self._stillborn} workers ended before they had begun{self.trouble()}",
                "can they reach the bucket of the run, and with which keys?",
                retry=True,
            )
        self._tries += 1
