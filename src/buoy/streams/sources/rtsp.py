"""Cameras over RTSP."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from buoy.errors import RefusedError, SourceError
from buoy.streams.frame import Picture, Skipped
from buoy.streams.sources.address import Peer, mask, resolve
from buoy.streams.sources.halt import Halt
from buoy.streams.sources.late import Late
from buoy.streams.sources.libav import Held, frames_of, load_av, seconds, video_of
from buoy.streams.sources.sparse import Sparse

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["CameraSource"]


class CameraSource:
    """`rtsp://`, `rtsps://`, always over TCP: over UDP a lost packet is a damaged picture.

    Args:
        address: with or without user and password; FFmpeg does Basic and Digest.
        silence_s: of no bytes, after which the connection is given up.
        verify_tls: whether the certificate of a camera over TLS must be trusted.
        every_frame: never leave out frames to catch up.
        every_s: one frame in so many seconds is wanted, so that others may be left undecoded; 0 for all.
    """

    again = True
    connects = True

    def __init__(
        self,
        address: str,
        silence_s: float,
        *,
        verify_tls: bool = True,
        every_frame: bool = False,
        every_s: float = 0.0,
    ) -> None:
        load_av()
        self._every_frame = every_frame
        self._every_s = every_s
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
                stream = video_of(container)
                # A frame is shown as soon as it is decoded; cameras seldom reorder, and the decoder notices if so.
                stream.codec_context.flags |= av.codec.context.Flags.low_delay
                late = None if self._every_frame else Late()
                yield from _decode_live(container, stream, halt, late, Sparse(self._every_s))
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
            hint = "put both into the address, before the host"
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
        if self.peer is None:
            return ""
        host = urlsplit(self._address).hostname
        with suppress(OSError), socket.create_connection(self.peer[1][:2], self.silence_s) as plain:
            try:
                ssl.create_default_context().wrap_socket(plain, server_hostname=host).close()
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
        return ""


def _decode_live(
    container: InputContainer, stream: VideoStream, halt: Halt, late: Late | None, sparse: Sparse
) -> Generator[Picture | None]:
    """Frames as they come; what cannot be decoded before the first key frame was never a frame to us."""
    began = False
    for packet in container.demux(stream):
        now_s, arrived_s = time.time(), time.monotonic()
        if halt.is_set():
            return
        if late and late.skips(seconds(packet.pts, stream), packet.is_keyframe, arrived_s):
            yield Picture(Skipped("late"), captured_s=now_s, arrived_s=arrived_s)
            continue
        reorders = stream.codec_context.has_b_frames
        if began and sparse.skips(seconds(packet.pts, stream), packet.is_keyframe, reorders=reorders):
            yield Picture(Skipped("sampling"), captured_s=now_s, arrived_s=arrived_s)
            continue
        frames, fault = frames_of(packet)
        began = began or bool(frames)
        images: list[Held | Skipped] = [Skipped("undecodable") if frame.is_corrupt else Held(frame) for frame in frames]
        if fault and began:
            images.append(Skipped("undecodable"))
        for image in images:
            yield Picture(image, captured_s=now_s, arrived_s=arrived_s)
        if not images:
            yield None


def _authorities() -> str:
    """The file with the certificates that this machine trusts."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile
