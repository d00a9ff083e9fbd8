"""Keeps one stream supplied with frames: connects, reads, notices silence, comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from buoy.streams.backoff import Backoff
from buoy.streams.slot import Slot, Tally
from buoy.streams.spec import StreamSpec

__all__ = ["Reader", "State"]


class State(NamedTuple):
    """How a stream is, from a moment on."""

    #: gap and refused: no frames since then; refused is tried again only now and then.
    state: Literal["connecting", "live", "gap", "ended", "refused"]
    #: For people; empty where there is nothing to say. Never has a password in it.
    reason: str
    #: Seconds since 1970, UTC. Of a gap: when the last frame came (or the stream was opened).
    since_s: float


class Reader:
    """Reads one source in threads of its own.

    `ended` is told when the source has no more and every frame of it is in the slot, or after `stop`.

    Args:
        spec: the stream.
        slot: where frames go; closed by `stop`.
        tally: told of every frame received.
        on_state: told of each change, never twice of the same; it must not wait.
        backoff: between attempts; 1 s to 30 s by default.

    Raises:
        UsageError: the source is of no kind that is known, or needs an extra that is not installed.
    """

    def __init__(
        self,
        spec: StreamSpec,
        slot: Slot,
        tally: Tally,
        on_state: Callable[[State], None],
        *,
        backoff: Backoff | None = None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begin; does not wait."""

    def stop(self) -> None:
        """End, and tell `ended`. A call into a library that hangs is left to end by itself, within seconds."""

    def push(self, jpeg: bytes, captured_s: float | None = None) -> None:
        """A frame of a client, for a source of the kind `push:`; never waits.

        Raises:
            UsageError: the source is of another kind.
        """
