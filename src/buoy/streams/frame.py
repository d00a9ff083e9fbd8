"""One picture of a source, in hand: still encoded, or decoded but not yet turned into RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from msgspec import UNSET

from buoy.errors import BuoyError, as_buoy_error
from buoy.image import Pixels
from buoy.results import FrameInfo
from buoy.streams.progress import Spot

__all__ = ["Decoded", "Frame", "Image", "Picture", "Skipped", "utc"]


class Decoded(Protocol):
    """A picture that a video decoder holds in its own form."""

    def pixels(self) -> Pixels:
        """(H, W, 3) uint8 RGB, upright: made now, which costs milliseconds."""
        ...


#: JPEG (or another format that `buoy.image` reads), what a decoder holds, or why there is no picture.
Image = bytes | Decoded | BuoyError


class Skipped(NamedTuple):
    """A frame of which the source made no picture: counted, and dropped for this reason."""

    reason: str


class Picture(NamedTuple):
    """What a source yields; the reader makes a `Frame` of it."""

    image: Image | Skipped
    #: Seconds since the start of the video, by its own clock.
    position_s: float | None = None
    #: Seconds since 1970, UTC; now, where the source does not know better.
    captured_s: float | None = None
    #: `time.monotonic()` when it was received; now, if it was handed on at once.
    arrived_s: float | None = None
    #: Name of the file, below the folder that is read; empty where there are no files.
    name: str = ""
    #: By which it is known when the source is read again (`buoy.streams.progress`): of a folder, or of a video.
    mark: bytes | Spot | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a stream.

    Whoever has it in hand owes the account one `processed` or `dropped`.
    """

    stream: str
    #: Counted from 0 since the stream was opened; a reconnect does not start anew, dropped frames count too. Where a
    #: source goes on in the middle, so does the number.
    number: int
    image: Image
    #: Seconds since 1970, UTC.
    captured_s: float
    #: `time.monotonic()` at which it was received: what an age is reckoned from.
    arrived_s: float
    position_s: float | None = None
    name: str = ""
    mark: bytes | Spot | None = None

    @property
    def title(self) -> str:
        """The name of the input in records: the file's, or the stream's and the number."""
        return self.name or f"{self.stream}/{self.number:09d}"

    @property
    def clock_s(self) -> float:
        """The source's own time, which sampling goes by where every frame is read."""
        return self.captured_s if self.position_s is None else self.position_s

    def info(self, flags: Sequence[str] = ()) -> FrameInfo:
        """What records say of it."""
        return FrameInfo(
            stream=self.stream,
            number=self.number,
            captured=utc(self.captured_s),
            position_s=UNSET if self.position_s is None else round(self.position_s, 3),
            flags=list(flags),
        )

    def load(self) -> bytes | Pixels | BuoyError:
        """What `engine.Input` takes: encoded bytes, (H, W, 3) uint8 RGB, or the error. Never raises.

        Pixels are made at each call: call it once, in the thread that goes on with them.
        """
        if isinstance(self.image, bytes | BuoyError):
            return self.image
        try:
            return self.image.pixels()
        except Exception as error:  # a decoder's or scaler's refusal concerns this picture alone
            return as_buoy_error(error, self.title)


def utc(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
