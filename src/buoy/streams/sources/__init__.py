"""Where frames come from: one file for each kind of source, behind one interface."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from buoy.streams.frame import Picture
from buoy.streams.progress import Progress
from buoy.streams.slot import Policy
from buoy.streams.sources.address import Peer, kind_of, mask
from buoy.streams.sources.halt import Halt
from buoy.streams.sources.push import PushSource
from buoy.streams.spec import StreamSpec

__all__ = ["SILENCE_S", "Source", "mask", "open_source", "policy_of"]

#: No bytes from a camera for so long is an outage.
SILENCE_S = 4.0


class Source(Protocol):
    """Something that gives pictures, once or again and again."""

    @property
    def silence_s(self) -> float | None:
        """No bytes for so long is an outage; `None` where silence is nothing unusual."""
        ...

    @property
    def again(self) -> bool:
        """Whether another call goes on where the last one ended, rather than beginning anew."""
        ...

    @property
    def connects(self) -> bool:
        """Whether a new connection can help against silence."""
        ...

    @property
    def peer(self) -> Peer | None:
        """Where it connects to, once that is known."""
        ...

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
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


def open_source(spec: StreamSpec, progress: Progress) -> Source:
    """The source of a stream; nothing is connected yet. A folder or video goes on where the progress says.

    Raises:
        UsageError: it is of no kind that is known, or needs an extra that is not installed.
    """
    kind, policy = kind_of(spec.source), policy_of(spec)
    if kind == "push":
        # A client that sends a picture a minute is not silent.
        return PushSource(max(SILENCE_S, 2.5 * spec.every_s))
    # What follows costs memory, and most services need one of it at most.
    if kind == "http":
        from buoy.streams.sources.mjpeg import MjpegSource

        return MjpegSource(spec.source, SILENCE_S, spec.verify_tls)
    if kind == "folder":
        from buoy.streams.sources.folder import FolderSource

        return FolderSource(Path(spec.source), progress)
    if kind == "file":
        from buoy.streams.sources.video import FileSource

        return FileSource(Path(spec.source), paced=policy == "live", past=progress.past.spot)
    from buoy.streams.sources.rtsp import CameraSource

    every_frame = policy == "file"
    return CameraSource(
        spec.source, SILENCE_S, verify_tls=spec.verify_tls, every_frame=every_frame, every_s=spec.every_s
    )
