"""Cameras over RTSP, and video files: FFmpeg's demuxers and decoders, by way of PyAV."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buoy.errors import InputError, RefusedError, SourceError, UsageError
from buoy.image import MAX_PIXELS, Pixels
from buoy.store.complete import is_whole, leases_trusted
from buoy.streams.frame import Picture, Skipped
from buoy.streams.sources.address import Peer, mask, resolve
from buoy.streams.sources.halt import Halt
from buoy.streams.sources.late import Late

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["CameraSource", "FileSource", "load_av"]


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


class _Decoded:
    """A frame in the decoder's own form, which is half of RGB's size."""

    def __init__(self, frame: VideoFrame) -> None:
        self._frame = frame

    def pixels(self) -> Pixels:
        """Convert, and turn upright as the file says."""
        import numpy as np

        frame = self._frame
        if frame.width * frame.height > MAX_PIXELS:
            raise InputError(
                f"a frame has {frame.width} x {frame.height} pixels, the limit is {MAX_PIXELS / 1e6:,.0f} megapixels",
                "scale the video down, or raise BUOY_MAX_PIXELS",
            )
        turns = round(frame.rotation / 90) % 4
        pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class CameraSource:
    """`rtsp://`, `rtsps://`, always over TCP: over UDP a lost packet is a damaged picture.

    Args:
        address: with or without user and password; FFmpeg does Basic and Digest.
        silence_s: of no bytes, after which the connection is given up.
        verify_tls: whether the certificate of a camera over TLS must be trusted.
        every_frame: never leave out frames to catch up.
    """

    again = True
    connects = True

    def __init__(self, address: str, silence_s: float, *, verify_tls: bool = True, every_frame: bool = False) -> None:
        load_av()
        self._every_frame = every_frame
        self.silence_s: float | None = silence_s
        self.peer: Peer | None = None
        self._address = address
        self._verify = verify_tls and address.lower().startswith("rtsps:")

    def pictures(self, halt: Halt) -> Generator[Picture | None]:
        """Frames as they are decoded; `None` for each packet that gives none."""
        av = load_av()
        self.peer = resolve(self._address)
        try:
            with av.open(self._address, options=self._options(), timeout=(self.silence_s, self.silence_s)) as container:
                stream = _video(container)
                # A frame is shown as soon as it is decoded; cameras seldom reorder, and the decoder notices if so.
                stream.codec_context.flags |= av.codec.context.Flags.low_delay
                yield from _decode_live(container, stream, halt, None if self._every_frame else Late())
        except av.error.FFmpegError as error:
            raise self._told(error) from None
        if not halt.is_set():
            raise SourceError("the camera ended the stream")

    def _options(self) -> dict[str, str]:
        options = {
            "rtsp_transport": "tcp",
            "timeout": str(int((self.silence_s or 0) * 1e6)),
            # The description says what the decoder needs; FFmpeg's own look at the first seconds would delay them.
            "probesize": "32",
            "fflags": "nobuffer",
        }
        if self._verify:
            options |= {"tls_verify": "1", "ca_file": _authorities()}
        return options

    def _told(self, error: Any) -> SourceError:
        """The reason in words. The error's own text has the address in it."""
        av, text = load_av(), mask(error.strerror or type(error).__name__)
        if isinstance(error, av.error.HTTPUnauthorizedError):
            hint = "put them into the address: rtsp://user:password@host/..."
            return RefusedError("the camera wants another user or password (401)", hint)
        if isinstance(error, av.error.HTTPForbiddenError):
            return RefusedError("the camera forbids it to this user (403)", "give the user the right to watch")
        if isinstance(error, av.error.HTTPNotFoundError):
            return RefusedError("the camera has nothing at this path (404)", "look the path up in the camera's manual")
        if isinstance(error, av.error.HTTPClientError):
            return RefusedError(f"the camera refuses: {text}", "look the path up in the camera's manual")
        if isinstance(error, av.error.ExitError | TimeoutError):
            return SourceError("the camera is silent")
        if self._verify and error.errno == 5 and (fault := self._certificate_fault()):
            return RefusedError(
                f"the camera's certificate is not trusted: {fault}",
                "name its authority in SSL_CERT_FILE, or set verify_tls: false for this stream",
            )
        return SourceError(f"no connection: {text}" if error.errno in (101, 110, 111, 113) else f"it broke off: {text}")

    def _certificate_fault(self) -> str:
        """What is wrong with the certificate; FFmpeg says no more than that something is."""
        import socket
        from urllib.parse import urlsplit

        if self.peer is None:
            return ""
        host = urlsplit(self._address).hostname
        with suppress(OSError), socket.create_connection(self.peer[1][:2], self.silence_s) as plain:
            try:
                ssl.create_default_context().wrap_socket(plain, server_hostname=host).close()
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
        return ""


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
            stream = _video(container)
            start_s, first_s = time.monotonic(), _seconds(stream.start_time, stream) or 0.0
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


def _video(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise RefusedError("there is no video in it", "give another source")
    stream = container.streams.video[0]
    # The cores are the network's. With threads the decoder would also be frames behind.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def _decode_live(
    container: InputContainer, stream: VideoStream, halt: Halt, late: Late | None
) -> Generator[Picture | None]:
    """Frames as they come; what cannot be decoded before the first key frame was never a frame to us."""
    began = False
    for packet in container.demux(stream):
        now_s, arrived_s = time.time(), time.monotonic()
        if halt.is_set():
            return
        if late and late.skips(_seconds(packet.pts, stream), packet.is_keyframe, arrived_s):
            yield Picture(Skipped("late"), captured_s=now_s, arrived_s=arrived_s)
            continue
        frames, fault = _frames(packet)
        began = began or bool(frames)
        images: list[_Decoded | Skipped] = [
            Skipped("undecodable") if frame.is_corrupt else _Decoded(frame) for frame in frames
        ]
        if fault and began:
            images.append(Skipped("undecodable"))
        for image in images:
            yield Picture(image, captured_s=now_s, arrived_s=arrived_s)
        if not images:
            yield None


def _decode_file(
    container: InputContainer, stream: VideoStream, halt: Halt, first_s: float
) -> Generator[Picture | None]:
    """Every frame with its position, and an error in place of every packet that is damaged."""
    number = 0
    for packet in container.demux(stream):
        if halt.is_set():
            return
        frames, fault = _frames(packet)
        for frame in frames:
            yield Picture(_Decoded(frame), _position_s(frame, stream, first_s, number))
            number += 1
        if fault:
            yield Picture(InputError(f"the video is damaged after frame {number}: {fault}", "copy it again"))


def _frames(packet: Packet[VideoStream]) -> tuple[list[VideoFrame], str]:
    """What a packet decodes to, and what is wrong with it."""
    from av.error import FFmpegError

    try:
        return list(packet.decode()), ""
    except FFmpegError as error:
        return [], str(error.strerror)


def _seconds(ticks: int | None, stream: VideoStream) -> float | None:
    return None if ticks is None or not stream.time_base else float(ticks * stream.time_base)


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


def _authorities() -> str:
    """The file with the certificates that this machine trusts."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile
