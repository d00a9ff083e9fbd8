"""The rows of a run's results, in order: what its seal names; those of a retry laid over those of the run below.

The n-th failed object of the run below is row n of the retry. So the two seals are all that is needed, whatever
either has been through, and a retry can have a retry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from buoy.batch.bases import FAILED, Below, open_base
from buoy.batch.ledger import Ledger, tally
from buoy.batch.seal import Leaf, Seal
from buoy.batch.spec import Base
from buoy.batch.tables import arrow, read_table
from buoy.errors import StoreError

__all__ = ["counts_of", "failed_rows", "tables_of"]

_AHEAD = 16


def tables_of(ledger: Ledger, seal: Seal, base: Base | None) -> Iterator[Any]:
    """The rows of a run as tables, objects in the order of the manifest and none in two of the tables.

    Raises:
        StoreError: an attempt is not what was sealed, or the run below is not what it was.
    """
    own = _tables(ledger, seal.leaves)
    if base is None or base.kind != "retry":
        return own
    below, sealed = _below(base)
    return _overlaid(tables_of(below.ledger, sealed, below.spec.base), own)


def counts_of(seal: Seal, base: Base | None) -> dict[str, int]:
    """Objects by status; of a retry those of the run below are in it."""
    own = tally(leaf.attempt.counts for leaf in seal.leaves)
    if base is None or base.kind != "retry":
        return own
    below, sealed = _below(base)
    settled = {name: n for name, n in counts_of(sealed, below.spec.base).items() if name not in FAILED}
    return tally([settled, own])


def failed_rows(table: Any) -> list[int]:
    """The rows of objects without a result; a picture that failed inside a zip that did not is none."""
    import pyarrow.compute as compute

    failed = compute.is_in(table["status"], arrow().array(FAILED))
    fine = set(table.filter(compute.invert(failed))["row"].unique().to_pylist())
    return sorted(set(table.filter(failed)["row"].unique().to_pylist()) - fine)


def _below(base: Base) -> tuple[Below, Seal]:
    below = open_base(base)
    seal = below.seal()
    if seal.digest != base.digest:
        raise StoreError(f"the seal of {base.run} is not the one that was retried", "retry it again")
    return below, seal


def _overlaid(below: Iterator[Any], own: Iterator[Any]) -> Iterator[Any]:
    import pyarrow.compute as compute

    fresh, done = _Rows(own), 0
    for table in below:
        if rows := failed_rows(table):
            numbers = arrow().array(rows)
            new = fresh.take(done + len(rows))
            places = compute.subtract(new["row"], done)
            new = new.set_column(0, "row", numbers.take(places.combine_chunks()))
            kept = table.filter(compute.invert(compute.is_in(table["row"], numbers)))
            table = arrow().concat_tables([kept, new])
            table = table.take(compute.sort_indices(table["row"]))  # stable: an object's rows stay in their order
            done += len(rows)
        yield table
    fresh.end()


class _Rows:
    """The rows of a retry, taken object by object."""

    def __init__(self, tables: Iterator[Any]) -> None:
        self._tables = tables
        self._held: list[Any] = []
        self._next = 0

    def take(self, stop: int) -> Any:
        """What comes before row `stop`."""
        import pyarrow.compute as compute

        while self._next < stop:
            if (table := next(self._tables, None)) is None:
                raise StoreError(f"the retry ends at row {self._next}, before its last object", "retry it again")
            self._held.append(table)
            self._next = table["row"][-1].as_py() + 1
        held = arrow().concat_tables(self._held)
        now = compute.less(held["row"], stop)
        self._held = [held.filter(compute.invert(now))]
        return held.filter(now)

    def end(self) -> None:
        """Nothing may be left."""
        if any(table.num_rows for table in [*self._held, *self._tables]):
            raise StoreError("the retry has more objects than have failed in the run below", "retry it again")


def _tables(ledger: Ledger, leaves: list[Leaf]) -> Iterator[Any]:
    """The rows of the leaves, read a few leaves ahead."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        coming = iter(leaves)
        futures = [pool.submit(_load, ledger, leaf) for leaf in islice(coming, _AHEAD)]
        while futures:
            yield read_table(futures.pop(0).result())
            futures += [pool.submit(_load, ledger, leaf) for leaf in islice(coming, 1)]


def _load(ledger: Ledger, leaf: Leaf) -> bytes:
    data = ledger.load(leaf.attempt.key)
    if hashlib.sha256(data).hexdigest() != leaf.attempt.sha256:
        raise StoreError(f"{leaf.attempt.key} is not what was sealed", "the store was changed: buoy batch run --again")
    return data
