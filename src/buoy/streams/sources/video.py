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
from buoy.streams.progress import Spot
from buoy.streams.sources.halt import Halt
from buoy.streams.sources.libav import Held, frames_of, load_av, seconds, video_of
from buoy.streams.sources.place import Place

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
        past: the picture after which to begin, if the file is still that one.
    """

    #: Another call would begin at the same frame again.
    again = False
    connects = False
    silence_s = None
    peer = None

    def __init__(self, path: Path, *, paced: bool, past: Spot | None = None) -> None:
        load_av()
        self._path = path
        self._paced = paced
        self._past = past

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
        """Every frame, with its position; damaged packets are pictures that are errors."""
        file = self._check()
        past = self._past if self._past and _is_of(self._past, file) else None
        sought = past is not None and self._finds(past)
        with self._open() as container:
            stream = video_of(container)
            if past and sought:
                container.seek(past.pts or 0, stream=stream)
            place = Place(past, sought=sought)
            yield from self._read(container, stream, halt, place, file)

    def _read(
        self, container: InputContainer, stream: VideoStream, halt: Halt, place: Place, file: os.stat_result
    ) -> Generator[Picture | None]:
        av = load_av()
        start_s, position_s, gave = time.monotonic(), 0.0, place.reached
        goes_on = not gave
        try:
            for picture in _decode_file(container, stream, halt, place, file):
                if picture is not None and picture.position_s is not None:
                    position_s = max(position_s, picture.position_s)
                    if goes_on and not gave:
                        start_s = time.monotonic() - position_s
                    if self._paced and halt.wait(start_s + position_s - time.monotonic()):
                        return
                gave = gave or picture is not None
                yield picture
        except av.error.FFmpegError as error:
            if gave or not place.reached:
                raise SourceError(f"{self._path} is damaged after {position_s:.1f} s: {error.strerror}") from None
        if gave and not halt.is_set() and (missing := _missing(container, stream, position_s)):
            raise SourceError(f"{self._path} {missing}", "copy it again: it is not whole")

    def _open(self) -> InputContainer:
        av = load_av()
        try:
            found: InputContainer = av.open(str(self._path), options={"protocol_whitelist": "file"})
        except av.error.FFmpegError as error:
            raise RefusedError(
                f"{self._path} is no video that can be read: {error.strerror}",
                "copy it again if it is not whole: an MP4 that was cut off has no index",
            ) from None
        return found

    def _finds(self, past: Spot) -> bool:
        """Whether decoding can begin shortly before a picture: files without an index lead to anywhere."""
        if past.pts is None:
            return False
        with self._open() as container:
            stream = video_of(container)
            try:
                container.seek(past.pts, stream=stream)
                first = next(container.demux(stream))
            except (load_av().error.FFmpegError, StopIteration):
                return False
            return first.is_keyframe and first.pts is not None and first.pts <= past.pts

    def _check(self) -> os.stat_result:
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if not is_whole(file.fileno(), trusted=leases_trusted(file.fileno())):
                    raise SourceError(f"{self._path}: somebody is still writing it")
        except OSError as error:
            raise RefusedError(f"{self._path}: {error.strerror}", "check path and rights") from None
        if not found.st_size:
            raise RefusedError(f"{self._path} is empty (0 bytes)", "copy it again")
        return found


def _decode_file(
    container: InputContainer, stream: VideoStream, halt: Halt, place: Place, file: os.stat_result
) -> Generator[Picture | None]:
    """Every new frame with its position, and an error in place of every packet that is damaged."""
    first_s = seconds(stream.start_time, stream) or 0.0
    for packet in container.demux(stream):
        if halt.is_set():
            return
        frames, fault = frames_of(packet)
        for frame in frames:
            if place.is_new(frame.pts):
                position_s = _position_s(frame, stream, first_s, place.number)
                yield Picture(Held(frame), position_s, mark=_spot(place, file))
            else:
                yield None
        if fault:
            if place.is_new(None):
                error = InputError(f"the video is damaged after frame {place.number}: {fault}", "copy it again")
                yield Picture(error, mark=_spot(place, file))
            else:
                yield None


def _spot(place: Place, file: os.stat_result) -> Spot:
    return Spot(number=place.number, pts=place.pts, size_bytes=file.st_size, changed_ns=file.st_mtime_ns)


def _is_of(spot: Spot, file: os.stat_result) -> bool:
    return (spot.size_bytes, spot.changed_ns) == (file.st_size, file.st_mtime_ns)


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
