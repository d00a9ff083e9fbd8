"""What a run will take, from a sample of its objects that is spread over the manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random
from typing import NamedTuple

import msgspec
from msgspec import Struct

from buoy import machine
from buoy.batch.cells import Costs, kind_of
from buoy.batch.ledger import Ledger
from buoy.batch.manifest import Index, ManifestRows, Row
from buoy.batch.runner import ItemRunner

__all__ = ["Estimate", "estimate", "sample_rows"]

#: Where in the manifest samples are taken, and how many objects in all: a twentieth, since they are looked at twice.
_SPOTS, _LEAST, _MOST, _SHARE = 16, 48, 240, 20
_LONGEST_S = 20.0
_RESAMPLES = 400


class Estimate(Struct, frozen=True, kw_only=True):
    """What the sample says. Times are of one machine with all its cores."""

    sampled: int
    #: Per object that is looked at, reading it included.
    mean_s: float
    by_kind: dict[str, float]
    #: For all objects, and within which it lies in 8 of 10 cases, as far as the sample can tell.
    total_s: float
    total_p10_s: float
    total_p90_s: float
    #: Of one request to the ledger.
    round_trip_s: float
    cores: int

    def costs(self, share: float) -> Costs:
        """Costs for a pilot that takes `share` times as long as the whole machine."""
        return Costs({kind: cost * share for kind, cost in self.by_kind.items()}, self.mean_s * share)


class _Timed(NamedTuple):
    kind: str
    seconds: float


def sample_rows(rows: ManifestRows, index: Index, random: Random, most: int | None = None) -> list[Row]:
    """Objects from places that are spread over the manifest, a few neighbours from each; `most` of them, or a share."""
    most = most or max(_LEAST, min(_MOST, index.todo // _SHARE))
    if index.todo <= most:
        return list(islice(_looked_at(rows), index.todo))
    each, found = most // _SPOTS, set[Row]()
    for spot in range(_SPOTS):
        start = min(index.rows - 1, int((spot + random.random()) * index.rows / _SPOTS))
        near = rows.read(start, min(index.rows, start + 40 * each))
        found.update([row for row in near if not row.fate][:each])
    return sorted(found) or list(islice(_looked_at(rows), most))  # all of them may lie between two of the places


def _looked_at(rows: ManifestRows) -> Iterator[Row]:
    return (row for row in rows.walk() if not row.fate)


def estimate(ledger: Ledger, index: Index, runner: ItemRunner, random: Random) -> Estimate:
    """Look at a sample, or recall what an earlier coordinator has found."""
    if (known := ledger.read("estimate.json")) is not None:
        return msgspec.convert({name: known[name] for name in Estimate.__struct_fields__}, Estimate)
    sample = sample_rows(ManifestRows(ledger), index, random)
    timed = _run(sample, runner)
    trip_s = _round_trip_s(ledger)
    kinds: dict[str, list[float]] = {}
    for each in timed:
        kinds.setdefault(each.kind, []).append(each.seconds)
    by_kind = {kind: sum(times) / len(times) for kind, times in sorted(kinds.items())}
    seconds = [each.seconds for each in timed] or [0.0]
    mean_s = sum(seconds) / len(seconds)
    means = sorted(sum(random.choices(seconds, k=len(seconds))) / len(seconds) for _ in range(_RESAMPLES))
    found = Estimate(
        sampled=len(timed),
        mean_s=mean_s,
        by_kind=by_kind,
        total_s=mean_s * index.todo,
        total_p10_s=0.9 * means[_RESAMPLES // 10] * index.todo,
        total_p90_s=1.1 * means[_RESAMPLES * 9 // 10] * index.todo,
        round_trip_s=trip_s,
        cores=machine.cores(),
    )
    ledger.create("estimate.json", msgspec.to_builtins(found))
    return found


def _run(sample: Sequence[Row], runner: ItemRunner) -> list[_Timed]:
    """Run the sample kind by kind, each long enough to keep the machine busy; the first object warms up."""
    if not sample:
        return []
    for _ in runner.run(sample[:1], lambda: False):
        pass
    kinds: dict[str, list[Row]] = {}
    for row in sample:
        kinds.setdefault(kind_of(row), []).append(row)
    timed: list[_Timed] = []
    began_s = time.monotonic()
    for kind, rows in sorted(kinds.items(), key=lambda each: -len(each[1])):
        timed += _run_kind(kind, rows, runner, began_s + _LONGEST_S)
        if time.monotonic() - began_s > _LONGEST_S:
            break
    return timed


def _run_kind(kind: str, rows: Sequence[Row], runner: ItemRunner, until_s: float) -> list[_Timed]:
    """The times between answers sum up to what all took together, however many were on their way at once."""
    last_s, timed = time.monotonic(), []
    for done in runner.run(rows, lambda: time.monotonic() > until_s):
        if done is not None:
            now_s = time.monotonic()
            timed.append(_Timed(kind, now_s - last_s))
            last_s = now_s
    return timed


def _round_trip_s(ledger: Ledger) -> float:
    times = []
    for number in range(5):
        began_s = time.monotonic()
        ledger.read(f"probe/absent-{number}")
        times.append(time.monotonic() - began_s)
    return sorted(times)[2]
