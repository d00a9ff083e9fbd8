"""The seal: one list of attempts that tile the manifest. What is merged is what it says, and nothing else.

Until it stands, nothing about the results is decided, however many pilots have written whatever; once it stands,
nothing changes them any more. So the results are right even on a store whose conditions cannot be trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from buoy.batch.fin import Attempt, Part
from buoy.batch.layout import SEAL, Cell
from buoy.batch.ledger import Ledger
from buoy.errors import StoreError

__all__ = ["Leaf", "Resolved", "Seal", "check_tiles", "lost", "make_seal", "read_seal", "resolve"]


class Leaf(NamedTuple):
    """A range of rows and the one attempt that counts for it."""

    start: int
    stop: int
    #: The range as a cell, whose attempt can be voided.
    cell: str
    attempt: Attempt


class Seal(NamedTuple):
    """What was sealed, and the first digits of its hash."""

    leaves: list[Leaf]
    digest: str


class Resolved(NamedTuple):
    """How far the cells have come."""

    leaves: list[Leaf]
    #: Cells without a `fin`.
    missing: list[Cell]


def resolve(planned: Iterable[Cell], fins: Mapping[Cell, Sequence[Part]], voided: set[Cell]) -> Resolved:
    """Follow the cells through their splits."""
    leaves: list[Leaf] = []
    missing: list[Cell] = []
    stack = sorted(planned, reverse=True)
    while stack:
        cell = stack.pop()
        if cell not in fins:
            missing.append(cell)
            continue
        for part in fins[cell]:
            whole = (part.start, part.stop) == (cell.start, cell.stop)
            leaf = cell if whole else part.cell
            if part.attempt is None:
                stack.append(leaf)
            elif leaf in voided:
                stack.append(leaf._replace(generation=leaf.generation + 1))
            else:
                leaves.append(Leaf(part.start, part.stop, leaf.id, part.attempt))
    return Resolved(sorted(leaves, key=lambda leaf: leaf.start), missing)


def check_tiles(leaves: Sequence[Leaf], rows: int) -> None:
    """Refuse leaves that do not cover each of `rows` exactly once.

    Raises:
        StoreError: the ledger was damaged.
    """
    stop = 0
    for leaf in leaves:
        if leaf.start != stop or leaf.stop < leaf.start:
            raise StoreError(f"the ledger is damaged: row {min(stop, leaf.start)} is covered twice or never")
        stop = leaf.stop
    if stop != rows:
        raise StoreError(f"the ledger is damaged: {stop} of {rows} rows are covered")


def lost(ledger: Ledger, leaves: Sequence[Leaf]) -> list[Leaf]:
    """The leaves whose attempts are not there, or are not what was committed."""
    found = ledger.stat_many([leaf.attempt.key for leaf in leaves])
    return [
        leaf
        for leaf, there in zip(leaves, found, strict=True)
        if there is None or (there.etag, there.size_bytes) != (leaf.attempt.etag, leaf.attempt.size_bytes)
    ]


def make_seal(ledger: Ledger, leaves: Sequence[Leaf]) -> Seal:
    """Seal the leaves, or learn what another has sealed."""
    ledger.create(SEAL, {"leaves": [msgspec.to_builtins(leaf) for leaf in leaves]})
    seal = read_seal(ledger)
    if seal is None:
        raise StoreError("the seal is gone right after it was made", "does the store delete objects by a rule?")
    return seal


def read_seal(ledger: Ledger) -> Seal | None:
    """The seal of the run, if there is one."""
    record = ledger.read(SEAL)
    if record is None:
        return None
    leaves = msgspec.convert(record["leaves"], list[Leaf])
    digest = hashlib.sha256(msgspec.json.encode([msgspec.to_builtins(leaf) for leaf in leaves])).hexdigest()
    return Seal(leaves, digest[:8])
