"""What the pilots tell of themselves in their heartbeats: what they have spent, done, wasted, and asked again for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from buoy.batch.ledger import Ledger, Record, tally

__all__ = ["Beats", "Vitals", "vitals_of"]


class Vitals(NamedTuple):
    """The sum over all pilots that ever were."""

    #: While at least one of them was there, by their own clocks: one that is wrong makes it more, never less.
    elapsed_s: float = 0.0
    #: Of pilots, and of the cores that they had.
    paid_s: float = 0.0
    core_s: float = 0.0
    #: Objects that were looked at, and those of them without effect.
    looked: int = 0
    wasted: int = 0
    #: Requests to the ledger; those made again by what the store said.
    requests: int = 0
    retries: Mapping[str, int] = {}


class Beats:
    """The heartbeats of a run; each is read when it has changed, and all at most so often."""

    def __init__(self, ledger: Ledger, every_s: float) -> None:
        self._ledger, self._every_s = ledger, every_s
        self._etags: dict[str, str] = {}
        self._records: dict[str, Record] = {}
        self._read_s = float("-inf")

    def read(self) -> Mapping[str, Record]:
        """What each pilot said last."""
        now_s = self._ledger.clock.monotonic()
        if self._records and now_s - self._read_s < self._every_s:
            return self._records
        self._read_s = now_s
        listed = {each.key.removeprefix("hb/"): each.etag for each in self._ledger.names("hb/")}
        new = [name for name, etag in listed.items() if self._etags.get(name) != etag]
        for name, record in zip(new, self._ledger.read_many([f"hb/{name}" for name in new]), strict=True):
            if record is not None:
                self._etags[name], self._records[name] = listed[name], record
        return self._records


def vitals_of(beats: Iterable[Mapping[str, Any]]) -> Vitals:
    """Sum up what pilots said."""
    beats = list(beats)
    return Vitals(
        elapsed_s=_union_s((each["at"] - each["age_s"], each["at"]) for each in beats),
        paid_s=sum(each["age_s"] for each in beats),
        core_s=sum(each["age_s"] * each.get("cores", 1) for each in beats),
        looked=sum(each["done"] for each in beats),
        wasted=sum(each["wasted"] for each in beats),
        requests=sum(each["requests"] for each in beats),
        retries=tally(each.get("causes", {}) for each in beats),
    )


def _union_s(spans: Iterable[tuple[float, float]]) -> float:
    """How long it was within at least one of them."""
    total_s, until_s = 0.0, float("-inf")
    for begin_s, end_s in sorted(spans):
        total_s += max(0.0, end_s - max(begin_s, until_s))
        until_s = max(until_s, end_s)
    return total_s
