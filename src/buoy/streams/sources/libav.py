"""FFmpeg's demuxers and decoders, by way of PyAV: what cameras and files have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from buoy.errors import InputError, RefusedError, UsageError
from buoy.image import MAX_PIXELS, Pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Held", "frames_of", "load_av", "seconds", "video_of"]


def load_av() -> Any:
    """PyAV, which takes 20 MB, so only streams that need it load it.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import av
        import av.logging
    except ImportError as error:
        raise UsageError(
            "RTSP and video files need PyAV, which is not installed", "pip install 'buoy[video]'"
        ) from error
    av.logging.set_level(None)  # FFmpeg's own log would have addresses in it, with their passwords
    return av


class Held:
    """A frame in the decoder's own form, which is half of RGB's size."""

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame

    def pixels(self) -> Pixels:
        """Convert, and turn upright as the file says."""
        frame = self._frame
        if frame.width * frame.height > MAX_PIXELS:
            raise InputError(
                f"a frame has {frame.width} x {frame.height} pixels, the limit is {MAX_PIXELS / 1e6:,.0f} megapixels",
                "scale the video down, or raise BUOY_MAX_PIXELS",
            )
        turns = round(frame.rotation / 90) % 4
        # One thread: by default FFmpeg would start as many as the machine has cores, for each frame.
        pixels = np.asarray(frame.reformat(format="rgb24", threads=1).to_ndarray(), np.uint8)
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def video_of(container: InputContainer) -> VideoStream:
    """The first video in it, to be decoded in the thread that reads.

    Raises:
        RefusedError: there is none.
    """
    if not container.streams.video:
        raise RefusedError("there is no video in it", "give another source")
    stream = container.streams.video[0]
    # The cores are the network's. With threads the decoder would also be frames behind.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def frames_of(packet: Packet[VideoStream]) -> tuple[list[VideoFrame], str]:
    """What a packet decodes to, and what is wrong with it."""
    from av.error import FFmpegError

    try:
        return list(packet.decode()), ""
    except FFmpegError as error:
        return [], str(error.strerror)


def seconds(ticks: int | None, stream: VideoStream) -> float | None:
    """A time of the stream's clock; `None` if it is not known."""
    return None if ticks is None or not stream.time_base else float(ticks * stream.time_base)
