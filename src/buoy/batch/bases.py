"""Runs that build on runs: a retry of what has failed, a catch-up on what is new. Both pin the run below by a hash."""

from __future__ import annotations

from collections.abc import Iterator
from random import SystemRandom
from typing import NamedTuple

import msgspec

from buoy.batch.area import Home
from buoy.batch.clock import SystemClock
from buoy.batch.control import Control
from buoy.batch.layout import DONE, SPEC
from buoy.batch.ledger import Ledger
from buoy.batch.manifest import read_index
from buoy.batch.seal import Seal, read_seal
from buoy.batch.spec import Base, Spec
from buoy.errors import StoreError, UsageError

__all__ = ["FAILED", "Below", "chain_of", "last_run", "open_base", "retry_spec", "since"]

#: Statuses of objects that have no result and should have one.
FAILED = ("failed", "changed", "deleted")


class Below(NamedTuple):
    """A run that another one builds on."""

    ledger: Ledger
    spec: Spec

    def seal(self) -> Seal:
        """Its seal.

        Raises:
            StoreError: it is gone.
        """
        found = read_seal(self.ledger)
        if found is None:
            raise StoreError(f"the seal of {self.spec.run} is gone", "does the store delete objects by a rule?")
        return found


def open_base(base: Base) -> Below:
    """The run below.

    Raises:
        StoreError: it is gone.
    """
    return _open(Home(base.home), base.run)


def chain_of(base: Base | None) -> Iterator[Below]:
    """The run below, and those below that."""
    while base is not None:
        below = open_base(base)
        yield below
        base = below.spec.base


def retry_spec(home: Home, run: str, *, item_timeout_s: float | None = None) -> Spec | None:
    """A run of the objects of another that have no result and should have one; `None` if there are none.

    Args:
        home: where that one lives, and this one will.
        run: its name.
        item_timeout_s: if it is to be another than that run's.

    Raises:
        UsageError: that one is not done.
    """
    below = _open(home, run)
    done = below.ledger.read(DONE)
    if done is None:
        raise UsageError(f"{run} is not done yet", f"let it come to its end: buoy batch resume {home.where}/{run}")
    if not any(done["counts"].get(status) for status in FAILED):
        return None
    base = Base(kind="retry", home=home.where, run=run, digest=below.seal().digest)
    handling = below.spec.handling
    if item_timeout_s is not None:
        handling = msgspec.structs.replace(handling, item_timeout_s=item_timeout_s)
    return msgspec.structs.replace(below.spec, base=base, listed=None, handling=handling)


def since(home: Home, run: str, spec: Spec) -> Base:
    """What a catch-up on the objects of a run builds on.

    Raises:
        UsageError: that run is about another source, or has no manifest, or will never look at what is in it.
    """
    below = _open(home, run)
    ours, theirs = _place(spec.source), _place(below.spec.source)
    if ours != theirs:
        raise UsageError(f"{run} is about {theirs}, not about {ours}", "name a run over the same bucket or folder")
    index = read_index(below.ledger)
    if index is None or Control(below.ledger).look().state == "cancelled":
        raise UsageError(f"{run} has not looked at its objects", "name a run that has, or will")
    return Base(kind="since", home=home.where, run=run, digest=index.sha256)


def last_run(home: Home, spec: Spec) -> str:
    """The last run at a place that has done the same as `spec` will do; empty if there is none.

    It is the end of the longest chain of catch-ups that are done, so that a command that was killed finds the run
    again that it had begun.
    """
    lengths: dict[str, int] = {}
    for run in home.runs():
        below = _open(home, run)
        retry = below.spec.base is not None and below.spec.base.kind == "retry"
        if not retry and below.spec.series == spec.series and below.ledger.read(DONE) is not None:
            lengths[run] = sum(1 for _ in chain_of(below.spec.base))
    return max(sorted(lengths), key=lambda run: lengths[run], default="")


def _open(home: Home, run: str) -> Below:
    ledger = Ledger(home.run(run), SystemClock(), SystemRandom())
    record = ledger.read(SPEC)
    if record is None:
        raise StoreError(f"there is no run {run} at {home.where}", "it is needed for the runs that build on it")
    return Below(ledger, msgspec.convert(record["spec"], Spec))


def _place(source: str) -> str:
    """What keys are relative to."""
    return f"s3://{source.removeprefix('s3://').partition('/')[0]}" if source.startswith("s3://") else source
