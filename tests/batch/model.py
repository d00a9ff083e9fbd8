"""An explicit-state model of how cells end and how they are sealed: every order of events is visited.

Workers are not modelled one by one. Whoever may exist, slow, dead, doubled or a zombie, can do two things to the
bucket: store an attempt, and ask for a `fin`; what was asked for lands at any later moment, any number of times, or
never. That is more than real workers can do, so what holds here holds for them: crash, expiry, lost replies and
late arrivals are all in it. Coordinators read `fin` by `fin`, at any moment each, and remember what they read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Report", "Variant", "explore"]

#: start, stop, generation
Cell = tuple[int, int, int]
#: number, start, stop
Attempt = tuple[int, int, int]
#: (start, stop, attempt or None), ...
Parts = tuple[tuple[int, int, Attempt | None], ...]
Key = tuple[str, Cell]


class Variant(NamedTuple):
    """The protocol, or a broken one, and how large a world to visit."""

    rows: int = 2
    attempts: int = 3
    coordinators: int = 1
    #: Whether create-only puts are refused when there is something.
    conditions: bool = True
    #: What the merge reads: seal, fin, att.
    merge: str = "seal"
    #: Whether commit and split stand under one key.
    one_key: bool = True
    splits: bool = True
    #: How many objects (attempts or fins) the store may lose.
    losses: int = 0
    #: Whether it may lose them once a seal was asked for, too. If not, nothing that it has lost is ever sealed.
    loses_sealed: bool = True
    #: Whether a coordinator looks that attempts are there before it seals them.
    looks: bool = True


class State(NamedTuple):
    fins: frozenset[tuple[Key, Parts]] = frozenset()
    atts: frozenset[Attempt] = frozenset()
    known: frozenset[Cell] = frozenset()
    voided: frozenset[Cell] = frozenset()
    pending: frozenset[tuple[Any, Any]] = frozenset()
    used: int = 0
    lost: int = 0
    #: What each coordinator has read.
    read: tuple[frozenset[tuple[Key, Parts]], ...] = ()
    seal: tuple[Attempt, ...] | None = None
    #: Name of the outputs, and the attempts that are in them.
    merged: frozenset[tuple[Any, tuple[Attempt, ...]]] = frozenset()
    merges: int = 0


class Report(NamedTuple):
    states: int
    violation: str
    #: Whether some path comes to its end, so that the silence of the others means something.
    merged: bool


def explore(variant: Variant, most: int = 500_000) -> Report:
    """Visit every state; stop at the first violation."""
    root: Cell = (0, variant.rows, 0)
    first = State(known=frozenset([root]), read=(frozenset(),) * variant.coordinators)
    seen, queue = {first}, deque([first])
    merged = False
    while queue:
        state = queue.popleft()
        merged |= bool(state.merged)
        if violation := _violation(variant, state):
            return Report(len(seen), violation, merged)
        for following in _steps(variant, state):
            if following not in seen:
                seen.add(following)
                queue.append(following)
        assert len(seen) <= most, f"more than {most} states"
    return Report(len(seen), "", merged)


def _violation(variant: Variant, state: State) -> str:
    if not variant.loses_sealed and state.seal is not None and not set(state.seal) <= state.atts:
        return "what was lost before is sealed"
    names = [name for name, _ in state.merged]
    if len(set(names)) < len(names):
        return "two merges of the same name differ"
    for _, attempts in state.merged:
        rows = sorted(row for _, start, stop in attempts for row in range(start, stop))
        if len(set(rows)) < len(rows):
            return "a row is there twice"
        if rows != list(range(variant.rows)):
            return "a row is missing"
    return ""


def _steps(variant: Variant, state: State) -> Iterator[State]:
    yield from _workers(variant, state)
    for put in state.pending:
        yield _land(variant, state, *put)
    for number in range(variant.coordinators):
        yield from _coordinator(variant, state, number)
    asked = state.seal is not None or any(key == "seal" for key, _ in state.pending)
    if state.lost < variant.losses and (variant.loses_sealed or not asked):
        for attempt in state.atts:
            yield state._replace(atts=state.atts - {attempt}, lost=state.lost + 1)
        for fin in state.fins:
            yield state._replace(fins=state.fins - {fin}, lost=state.lost + 1)


def _workers(variant: Variant, state: State) -> Iterator[State]:
    for cell in state.known:
        start, stop, _ = cell
        if state.used < variant.attempts:
            for upto in range(start + 1 if variant.splits else stop, stop + 1):
                attempt = (state.used, start, upto)
                rest: Parts = () if upto == stop else ((upto, stop, None),)
                put = (_key(variant, cell, split=upto < stop), ((start, upto, attempt), *rest))
                yield state._replace(atts=state.atts | {attempt}, pending=state.pending | {put}, used=state.used + 1)
        if variant.splits and stop - start > 1:
            middle = (start + stop) // 2
            put = (_key(variant, cell, split=True), ((start, middle, None), (middle, stop, None)))
            if put not in state.pending:
                yield state._replace(pending=state.pending | {put})


def _key(variant: Variant, cell: Cell, *, split: bool) -> Key:
    return ("split" if split and not variant.one_key else "fin", cell)


def _land(variant: Variant, state: State, key: Any, body: Any) -> State:
    if key == "seal":
        return state if state.seal is not None and variant.conditions else state._replace(seal=body)
    there = dict(state.fins)
    if key in there and variant.conditions:
        return state
    there[key] = body
    children = {(start, stop, 0) for start, stop, attempt in body if attempt is None}
    return state._replace(fins=frozenset(there.items()), known=state.known | children)


def _coordinator(variant: Variant, state: State, number: int) -> Iterator[State]:
    if variant.merge != "seal":
        leaves = _leaves(variant, state, dict(state.fins))
        if leaves is not None and state.merges < 2:
            content = tuple(sorted(state.atts if variant.merge == "att" else leaves))
            yield state._replace(merged=state.merged | {("results", content)}, merges=state.merges + 1)
        return
    if state.seal is not None and set(state.seal) <= state.atts:  # else it says that the store has lost something
        yield state._replace(merged=state.merged | {(state.seal, state.seal)})
    known = dict(state.read[number])
    for key, parts in state.fins:
        if key not in known:
            yield _remember(state, number, {**known, key: parts})
    leaves = _leaves(variant, state, known)
    if leaves is None:
        return
    gone = [attempt for attempt in leaves if attempt not in state.atts]
    if gone and variant.looks:
        yield _void(state, known, gone)
        return
    put = ("seal", tuple(sorted(leaves, key=lambda attempt: attempt[1])))
    if put not in state.pending:
        yield state._replace(pending=state.pending | {put})


def _remember(state: State, number: int, known: dict[Key, Parts]) -> State:
    read = list(state.read)
    read[number] = frozenset(known.items())
    return state._replace(read=tuple(read))


def _void(state: State, known: dict[Key, Parts], gone: list[Attempt]) -> State:
    cells = {
        (cell if (start, stop) == cell[:2] else (start, stop, 0))
        for (_, cell), parts in known.items()
        for start, stop, attempt in parts
        if attempt in gone
    }
    again = {(start, stop, generation + 1) for start, stop, generation in cells}
    return state._replace(voided=state.voided | cells, known=state.known | again)


def _leaves(variant: Variant, state: State, fins: dict[Key, Parts]) -> list[Attempt] | None:
    """The attempts that count, by these fins; `None` while something is missing."""
    stack: list[Cell] = [(0, variant.rows, 0)]
    leaves: list[Attempt] = []
    while stack:
        cell = stack.pop()
        found = [fins[key] for key in (("fin", cell), ("split", cell)) if key in fins]
        if not found:
            return None
        for start, stop, attempt in (part for parts in found for part in parts):
            leaf = cell if (start, stop) == cell[:2] else (start, stop, 0)
            if attempt is None:
                stack.append(leaf)
            elif leaf in state.voided:
                stack.append((*leaf[:2], leaf[2] + 1))
            else:
                leaves.append(attempt)
    return leaves
