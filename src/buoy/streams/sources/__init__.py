"""Where frames come from: one file for each kind of source, behind one interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from buoy.errors import UsageError
from buoy.streams.frame import Picture
from buoy.streams.slot import Policy
from buoy.streams.sources.address import kind_of, mask
from buoy.streams.spec import StreamSpec

__all__ = ["Source", "mask", "open_source", "policy_of"]


class Source(Protocol):
    """Something that gives pictures, once or again and again."""

    #: No bytes for so long is silence, which is an outage; `None` where silence is nothing unusual.
    silence_s: float | None

    def pictures(self, halt: threading.Event) -> Iterator[Picture | None]:
        """Connect, and give pictures until the source or `halt` ends it; disconnect when closed.

        `None` says that bytes came, but no whole picture yet. Each call is a connection of its own.

        Raises:
            SourceError: it cannot be reached, went away or broke off; worth another attempt soon.
            RefusedError: it will not give pictures to us: password, path, content.
        """
        ...


def policy_of(spec: StreamSpec) -> Policy:
    """The policy of a stream: what its user says, or what fits the source.

    Raises:
        UsageError: the source is of no kind that is known.
    """
    if spec.policy != "auto":
        return spec.policy
    return "file" if kind_of(spec.source) in ("file", "folder") else "live"


def open_source(spec: StreamSpec) -> Source:
    """The source of a stream; nothing is connected yet.

    Raises:
        UsageError: it is of no kind that is known, or needs an extra that is not installed.
    """
    raise UsageError("not yet")
