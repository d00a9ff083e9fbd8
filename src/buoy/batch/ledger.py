"""The ledger of a run: immutable objects, each created once; whoever creates it first has decided it.

A put whose reply was lost may have arrived. So every record carries a nonce, and whoever finds its key taken reads
the record and compares: its own nonce says that it was its own try that came first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, NamedTuple, TypeVar

import msgspec

from buoy.batch.area import Area
from buoy.batch.clock import Clock
from buoy.batch.patience import Patience
from buoy.errors import ExistsError, MissingError
from buoy.store import Object

__all__ = ["Created", "Ledger", "Record", "Stored", "tally"]

T = TypeVar("T")
Record = dict[str, Any]

_SOON_S = 0.2


class Created(NamedTuple):
    """What stands at a key after an attempt to create it, and whether it is ours."""

    won: bool
    record: Record


class Stored(NamedTuple):
    """An object of ours that is no record."""

    key: str
    etag: str
    sha256: str
    size_bytes: int


class Ledger:
    """Reads and creates the records of one run.

    Args:
        area: the run's part of the store.
        clock: to wait between tries.
        random: for nonces and jitter.
        patience_s: how long the store may fail before it is given up.
        parallel: reads at once of `read_many`.
    """

    def __init__(
        self, area: Area, clock: Clock, random: Random, *, patience_s: float = 300.0, parallel: int = 16
    ) -> None:
        self.area = area
        self.clock = clock
        self.random = random
        self.patience = Patience(clock, random, patience_s)
        self._parallel = parallel

    def create(self, key: str, record: Record) -> Created:
        """Create a record; of any number of creators one wins, and all learn what stands there.

        Raises:
            StoreError: the store refuses, or fails for too long.
        """
        nonce = self.nonce()
        record = {**record, "nonce": nonce}
        while True:
            try:
                self.patiently(lambda: self.area.put(key, msgspec.json.encode(record), create_only=True))
                return Created(True, record)
            except ExistsError:
                there = self.read(key)
                if there is not None:  # else it was deleted, or this reader is behind
                    return Created(there.get("nonce") == nonce, there)
                self.clock.sleep(self.random.uniform(0.0, _SOON_S))

    def store(self, key: str, data: bytes) -> Stored:
        """Put an object under a key that nobody else uses."""
        try:
            etag = self.patiently(lambda: self.area.put(key, data, create_only=True)).etag
        except ExistsError:  # the reply to an earlier try was lost
            etag = self.patiently(lambda: self.area.stat(key)).etag
        return Stored(key, etag, hashlib.sha256(data).hexdigest(), len(data))

    def overwrite(self, key: str, record: Record) -> None:
        """Put a record that has one owner and may change: a heartbeat."""
        self.patiently(lambda: self.area.put(key, msgspec.json.encode(record)))

    def read(self, key: str) -> Record | None:
        """A record; `None` if there is none."""
        try:
            data = self.patiently(lambda: self.area.get(key))
        except MissingError:
            return None
        found: Record = msgspec.json.decode(data)
        return found

    def read_many(self, keys: Sequence[str]) -> list[Record | None]:
        """Several records, in the order of their keys."""
        if self._parallel < 2 or len(keys) < 2:
            return [self.read(key) for key in keys]
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self.read, keys))

    def load(self, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            MissingError: it is not there.
        """
        return self.patiently(lambda: self.area.get(key))

    def stat_many(self, keys: Sequence[str]) -> list[Object | None]:
        """What several objects are, in the order of their keys."""

        def stat(key: str) -> Object | None:
            try:
                return self.patiently(lambda: self.area.stat(key))
            except MissingError:
                return None

        if self._parallel < 2 or len(keys) < 2:
            return [stat(key) for key in keys]
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(stat, keys))

    def names(self, prefix: str, after: str = "") -> list[Object]:
        """What a listing shows, which may be behind the truth."""
        return self.patiently(lambda: list(self.area.walk(prefix, after)))

    def last(self, chain: str) -> int:
        """The highest number of a chain that a listing shows; 0 if it is empty."""
        return max((int(each.key.rpartition("/")[2]) for each in self.names(f"{chain}/")), default=0)

    def nonce(self) -> str:
        """A name that nobody else has."""
        return f"{self.random.getrandbits(96):024x}"

    def patiently(self, call: Callable[[], T]) -> T:
        """Call the store, and again if what went wrong can pass."""
        return self.patience.call(call)


def tally(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum of several counts, by name."""
    total: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))
