"""Who is alive, judged by one observer on its own clock: clocks of two machines are never compared.

A heartbeat says nothing by its time, only by being another one than before. A claim has expired when its pilot's
heartbeat has not changed for the lease, counted from when this observer first saw it, or the claim.
A wrong judgement costs work done twice, never a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from buoy.batch.clock import Clock
from buoy.store import Object

__all__ = ["LeaseWatch"]


class _Beat(NamedTuple):
    etag: str
    changed_s: float
    #: Whether it was seen to change, not only to be there.
    moves: bool


class LeaseWatch:
    """What one process has seen of the others' heartbeats."""

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock = clock
        self.lease_s = lease_s
        self._beats: dict[str, _Beat] = {}
        self._gone: set[str] = set()
        self._first_seen: dict[str, float] = {}

    def see(self, heartbeats: Iterable[Object], gone: Iterable[str]) -> None:
        """Take a listing of the heartbeats, and the names of those that have ended for certain."""
        now_s = self._clock.monotonic()
        self._gone.update(gone)
        for each in heartbeats:
            name = each.key.rpartition("/")[2]
            last = self._beats.get(name)
            if last is None or last.etag != each.etag:
                self._beats[name] = _Beat(each.etag, now_s, last is not None)

    def age_s(self, thing: str) -> float:
        """How long ago this observer saw a claim or slot for the first time, which may be now."""
        now_s = self._clock.monotonic()
        return now_s - self._first_seen.setdefault(thing, now_s)

    def expired(self, thing: str, pilot: str) -> bool:
        """Whether a claim or slot of the pilot may be taken over."""
        age_s = self.age_s(thing)
        if pilot in self._gone:
            return True
        beat = self._beats.get(pilot)
        silent_s = self._clock.monotonic() - beat.changed_s if beat else age_s
        return min(age_s, silent_s) >= self.lease_s

    def moves(self, pilot: str) -> bool:
        """Whether the pilot's heartbeat was seen to change, and within the lease."""
        beat = self._beats.get(pilot)
        return beat is not None and beat.moves and self._clock.monotonic() - beat.changed_s < self.lease_s

    def alive(self) -> list[str]:
        """The names whose heartbeat moved within the lease."""
        now_s = self._clock.monotonic()
        return sorted(
            name
            for name, beat in self._beats.items()
            if name not in self._gone and now_s - beat.changed_s < self.lease_s
        )

    def silent(self) -> list[str]:
        """The names that have beaten and are not known to have ended."""
        return sorted(self._beats.keys() - self._gone)
