"""For how many pilots there is room: node by node, and by quotas. What was asked for counts, not what is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import NamedTuple

__all__ = ["ANY", "Fit", "Place", "by_nodes", "by_quota"]

Amounts = Mapping[str, float]

#: Of the places that there are, so many are left to others. Not of each node, which would leave the half of two
#: graphics cards idle, and nothing of a node that is just as large as a pilot.
HEAD_ROOM = 0.1


class Fit(NamedTuple):
    """So many pilots in all, those that run included."""

    pilots: int
    #: What sets this limit, for people.
    why: str = ""


#: Nothing that can be seen sets a limit: the person does.
ANY = Fit(1_000_000)


class Place(NamedTuple):
    """What a node gives in all, or a quota allows, of each resource, and what others than our pilots hold of it."""

    gives: Amounts
    taken: Amounts


def by_nodes(nodes: Sequence[Place], need: Amounts, head_room: float = HEAD_ROOM) -> Fit:
    """The sum over nodes, each by what it is shortest of: two halves on two nodes are no place.

    Args:
        nodes: those that take pods.
        need: of one pilot.
        head_room: the fraction of the places that is left to others.
    """
    if not nodes:
        return Fit(0, "no node is ready and takes pods")
    pilots, short = 0, dict.fromkeys(need, 0)
    for node in nodes:
        left = {name: node.gives.get(name, 0) - node.taken.get(name, 0) for name in need}
        scarce, fits = _least(left, need)
        short[scarce] += 1
        pilots += fits
    scarce = max(short, key=lambda name: short[name])
    return Fit(
        pilots - floor(pilots * head_room), f"{scarce} is what {short[scarce]} of {len(nodes)} nodes are short of"
    )


def by_quota(quota: Place, need: Amounts) -> Fit:
    """What a quota leaves; it may be about some of the resources only."""
    left = {name: hard - quota.taken.get(name, 0) for name, hard in quota.gives.items() if name in need}
    if not left:
        return ANY
    scarce, fits = _least(left, need)
    return Fit(fits, f"a quota leaves no more {scarce}")


def _least(left: Amounts, need: Amounts) -> tuple[str, int]:
    """What there is least of, in pilots, and for how many it is enough."""
    fits = {name: amount / need[name] for name, amount in left.items()}
    scarce = min(fits, key=lambda name: fits[name])
    return scarce, max(0, floor(fits[scarce] + 1e-9))
