"""The names of a run's objects, relative to `<out>/.runs/<run>/`: short ASCII, never containing an input's key.

    spec.json                     what the run is; fixed when it begins
    caps.json                     what the store guarantees, as probed
    manifest/shard-00000.parquet  key, size, etag, time, fate, version of every object; manifest/index.json comes last
    manifest/range-0000-00000..   a listing in ranges, between the keys of manifest/ranges.json, until it is in shards
    plan.json                     the cells
    ctl/000001                    chain: running, paused, cancelled; the highest number rules
    coord/000001                  chain of coordinators; the highest number rules
    slot/003-0001                 a pilot holds slot 3
    claim/<cell>-0001             a pilot works on the cell; epoch 2 is a claim after the first one expired
    assign/<pilot>/000001         only where the store cannot be trusted: the next cell of that pilot
    answer/<cell>-0001            only there: how the pilot with that claim would end the cell
    hb/<pilot>                    heartbeat: the only object that is ever overwritten
    gone/<pilot>                  the pilot has ended, for certain: nobody needs to wait for its lease
    att/<cell>-0001-<pilot>-..    result rows of one attempt
    fin/<cell>                    how the cell ended: its parts, each an attempt or a new cell
    new/<cell>                    announces a cell that came from a split; only a hint, `fin` decides
    void/<cell>                   the attempt of the cell was lost by the store: its next generation redoes it
    seal.json                     every leaf cell's attempt; all that the merge reads
    done.json                     where the results are

All but `hb/` are created once and never change.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CAPS",
    "DONE",
    "INDEX",
    "PLAN",
    "SEAL",
    "SPEC",
    "Cell",
    "answer_key",
    "assign_key",
    "chain_key",
    "claim_key",
    "parse_claim",
    "parse_slot",
    "shard_key",
    "slot_key",
]

SPEC, CAPS, PLAN, SEAL, DONE = "spec.json", "caps.json", "plan.json", "seal.json", "done.json"
INDEX = "manifest/index.json"


class Cell(NamedTuple):
    """A range of manifest rows that is claimed and committed as one."""

    start: int
    stop: int
    #: Above 0 if the store lost the attempt of the generation before.
    generation: int = 0

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start

    @property
    def id(self) -> str:
        """Its name in keys; sorts by rows."""
        return f"{self.start:012d}-{self.stop:012d}-{self.generation:02d}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read an `id`."""
        start, stop, generation = text.split("-")
        return cls(int(start), int(stop), int(generation))


def shard_key(number: int) -> str:
    """A part of the manifest."""
    return f"manifest/shard-{number:05d}.parquet"


def chain_key(chain: str, number: int) -> str:
    """A link of a chain, from 1."""
    return f"{chain}/{number:06d}"


def claim_key(cell: Cell, epoch: int) -> str:
    """The claim number `epoch` of a cell, from 1."""
    return f"claim/{cell.id}-{epoch:04d}"


def answer_key(cell: Cell, epoch: int) -> str:
    """What the pilot with that claim has to say."""
    return f"answer/{cell.id}-{epoch:04d}"


def assign_key(pilot: str, number: int) -> str:
    """What a pilot is given as its cell of that number, from 1."""
    return f"assign/{pilot}/{number:06d}"


def parse_claim(key: str) -> tuple[Cell, int]:
    """Cell and epoch of the key of a claim, or of the answer to it."""
    cell, _, epoch = key.rpartition("/")[2].rpartition("-")
    return Cell.parse(cell), int(epoch)


def slot_key(slot: int, epoch: int) -> str:
    """The holder number `epoch` of a slot, from 1."""
    return f"slot/{slot:03d}-{epoch:04d}"


def parse_slot(key: str) -> tuple[int, int]:
    """Slot and epoch of a slot's key."""
    slot, epoch = key.removeprefix("slot/").split("-")
    return int(slot), int(epoch)
