"""Video files."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from buoy.errors import InputError, RefusedError, SourceError
from buoy.store.complete import is_whole, leases_trusted
from buoy.streams.frame import Picture
from buoy.streams.sources.halt import Halt
from buoy.streams.sources.libav import Held, frames_of, load_av, seconds, video_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["FileSource"]


class FileSource:
    """A video file, from its first frame to its last, then no more.

    Args:
        path: of the file.
        paced: give frames at the pace of the video's own clock, as a camera would.
    """

    #: Another call would begin at the first frame.
    again = False
    connects = False
    silence_s = None
    peer = None

    def __init__(self, path: Path, *, paced: bool) -> None:
        load_av()
        self._path = path
        self._paced = paced

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
        """Every frame, with its position; damaged packets are pictures that are errors."""
        av = load_av()
        self._check()
        try:
            container = av.open(str(self._path), options={"protocol_whitelist": "file"})
        except av.error.FFmpegError as error:
            raise RefusedError(
                f"{self._path} is no video that can be read: {error.strerror}",
                "copy it again if it is not whole: an MP4 that was cut off has no index",
            ) from None
        with container:
            stream = video_of(container)
            start_s, first_s = time.monotonic(), seconds(stream.start_time, stream) or 0.0
            position_s = 0.0
            try:
                for picture in _decode_file(container, stream, halt, first_s):
                    if picture is not None and picture.position_s is not None:
                        position_s = max(position_s, picture.position_s)
                        if self._paced and halt.wait(start_s + position_s - time.monotonic()):
                            return
                    yield picture
            except av.error.FFmpegError as error:
                raise SourceError(f"{self._path} is damaged after {position_s:.1f} s: {error.strerror}") from None
            if not halt.is_set() and (missing := _missing(container, stream, position_s)):
                raise SourceError(f"{self._path} {missing}", "copy it again: it is not whole")

    def _check(self) -> None:
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if not is_whole(file.fileno(), trusted=leases_trusted(file.fileno())):
                    raise SourceError(f"{self._path}: somebody is still writing it")
        except OSError as error:
            raise RefusedError(f"{self._path}: {error.strerror}", "check path and rights") from None
        if not found.st_size:
            raise RefusedError(f"{self._path} is empty (0 bytes)", "copy it again")


def _decode_file(
    container: InputContainer, stream: VideoStream, halt: Halt, first_s: float
) -> Generator[Picture | None]:
    """Every frame with its position, and an error in place of every packet that is damaged."""
    number = 0
    for packet in container.demux(stream):
        if halt.is_set():
            return
        frames, fault = frames_of(packet)
        for frame in frames:
            yield Picture(Held(frame), _position_s(frame, stream, first_s, number))
            number += 1
        if fault:
            yield Picture(InputError(f"the video is damaged after frame {number}: {fault}", "copy it again"))


def _position_s(frame: VideoFrame, stream: VideoStream, first_s: float, number: int) -> float | None:
    if frame.pts is not None:
        return max(0.0, frame.time - first_s)
    return number / float(stream.average_rate) if stream.average_rate else None


def _missing(container: InputContainer, stream: VideoStream, position_s: float) -> str:
    """Says so if a video ended well before the length that its header announces; empty if not."""
    if stream.duration and stream.time_base:
        announced_s = float(stream.duration * stream.time_base)
    elif container.duration:
        announced_s = container.duration / 1e6
    else:
        return ""
    frame_s = 1 / float(stream.average_rate) if stream.average_rate else 0.1
    if announced_s - position_s <= max(0.25, 5 * frame_s):
        return ""
    return f"ends after {position_s:.1f} s, and its header announces {announced_s:.1f} s"
