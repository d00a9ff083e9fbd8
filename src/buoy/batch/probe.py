"""What a store really does, found out before a run relies on it. The answer becomes the run's `caps.json`.

Whatever it says, results stay right (see `seal`). Where create-only puts cannot be trusted, the coordinator gives the
cells to the pilots (see `division`), so that work is not done twice either.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from buoy.batch.area import Area
from buoy.batch.layout import CAPS
from buoy.batch.ledger import Ledger
from buoy.errors import ChangedError, ExistsError, StoreError

__all__ = ["Caps", "probe", "trusted"]

_RACERS, _RACES = 32, 8


class Caps(Struct, frozen=True, kw_only=True):
    """Guarantees of a store, as seen."""

    #: A second create-only put of a key is refused.
    create_only: bool
    #: Of many at once exactly one wins, on every key that was tried.
    create_race: bool
    #: A read with the etag of an older content is refused.
    pinned_reads: bool
    #: A part of an object can be read.
    ranges: bool


def trusted(ledger: Ledger) -> bool:
    """Whether the probe of the run has found that pilots may claim by themselves."""
    record = ledger.read(CAPS)
    return record is None or bool(record["create_only"] and record["create_race"])


def probe(area: Area) -> Caps:
    """Try what a run relies on, below `probe/`, and leave nothing there.

    Raises:
        StoreError: the area cannot be written or read at all.
    """
    base = f"probe/{secrets.token_hex(6)}"
    keys = [f"{base}-{number}" for number in range(_RACES)]
    try:
        first = area.put(f"{base}-a", b"first", create_only=True).etag
        create_only = _refused(lambda: area.put(f"{base}-a", b"second", create_only=True), ExistsError)
        area.put(f"{base}-a", b"third one")
        return Caps(
            create_only=create_only,
            create_race=create_only and all(_winners(area, key) == 1 for key in keys),
            pinned_reads=_refused(lambda: area.get(f"{base}-a", etag=first), ChangedError),
            ranges=area.get(f"{base}-a", start=2, stop=5) == b"ird",
        )
    finally:
        for key in (f"{base}-a", *keys):
            area.delete(key)


def _refused(call: Callable[[], object], error: type[StoreError]) -> bool:
    try:
        call()
    except error:
        return True
    return False


def _winners(area: Area, key: str) -> int:
    def create(number: int) -> bool:
        return not _refused(lambda: area.put(key, b"%d" % number, create_only=True), ExistsError)

    with ThreadPoolExecutor(_RACERS) as pool:
        return sum(pool.map(create, range(_RACERS)))
