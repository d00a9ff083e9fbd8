"""An explicit-state model of slots: how many pilots work at once though nobody counts them.

A pilot looks at a slot, and asks for its next epoch at any later moment; in between others do the same, or die. Whether
a holder is dead is judged when it is looked at, rightly or wrongly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Report", "Variant", "explore"]


class Variant(NamedTuple):
    """The protocol, or a broken one, and how large a world to visit."""

    pilots: int = 4
    slots: int = 2
    #: Whether create-only puts are refused when there is something.
    conditions: bool = True
    #: So often is a living holder taken for dead.
    misjudged: int = 0
    #: Whether the next holder takes the next epoch; else the key is made anew.
    epochs: bool = True


class State(NamedTuple):
    #: Of each slot the holders by epoch, the last one rules.
    holders: tuple[tuple[int, ...], ...]
    #: Of each pilot: out, (slot, epoch) that it will ask for, holding, dead.
    pilots: tuple[object, ...]
    misjudged: int = 0


class Report(NamedTuple):
    states: int
    #: The most living holders at once, and whether every slot was held at some time.
    most: int
    full: bool


def explore(variant: Variant, most: int = 500_000) -> Report:
    """Visit every state."""
    first = State(((),) * variant.slots, ("out",) * variant.pilots)
    seen, queue = {first}, deque([first])
    holding = 0
    while queue:
        state = queue.popleft()
        holding = max(holding, sum(pilot == "holds" for pilot in state.pilots))
        for following in _steps(variant, state):
            if following not in seen:
                seen.add(following)
                queue.append(following)
        assert len(seen) <= most, f"more than {most} states"
    return Report(len(seen), holding, holding >= variant.slots)


def _steps(variant: Variant, state: State) -> Iterator[State]:
    for number, pilot in enumerate(state.pilots):
        if pilot == "out":
            for slot, holders in enumerate(state.holders):
                alive = bool(holders) and state.pilots[holders[-1]] == "holds"
                if not alive or state.misjudged < variant.misjudged:
                    wish = _with(state, number, (slot, len(holders) if variant.epochs else 0))
                    yield wish._replace(misjudged=state.misjudged + alive)
        elif isinstance(pilot, tuple):
            yield _ask(variant, state, number, *pilot)
        if pilot != "dead":
            yield _with(state, number, "dead")


def _ask(variant: Variant, state: State, number: int, slot: int, epoch: int) -> State:
    holders = state.holders[slot]
    if epoch < len(holders) and variant.conditions and variant.epochs:
        return _with(state, number, "out")
    changed = (*holders[:epoch], number, *holders[epoch + 1 :])
    slots = tuple(changed if each == slot else known for each, known in enumerate(state.holders))
    return _with(state, number, "holds")._replace(holders=slots)


def _with(state: State, number: int, pilot: object) -> State:
    return state._replace(pilots=(*state.pilots[:number], pilot, *state.pilots[number + 1 :]))
