"""A small MJPEG camera for tests: what a cheap network camera does over HTTP, and what it does wrong."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
from numpy.typing import NDArray

from support.rtsp import moving_bar
from support.stamp import stamp

__all__ = ["MjpegCamera", "mjpeg_camera", "stamped_jpeg"]

#: Writes a body of its own: gets `write`, and ends the answer by returning.
Body = Callable[[Callable[[bytes], object]], None]


def stamped_jpeg(pixels: NDArray[np.uint8], number: int) -> bytes:
    """A JPEG of an RGB picture with the number and the present time in its first rows."""
    picture = pixels.copy()
    stamp(picture, number)
    return cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@dataclass
class MjpegCamera:
    """Serves `/camera` to whoever asks; settings may be changed between two connections."""

    fps: float = 25.0
    #: (H, W, 3) uint8 RGB, shown again and again, each in its own size.
    pictures: Sequence[NDArray[np.uint8]] = field(default_factory=moving_bar)
    #: Frames until the answer ends; 0 for no end.
    frames: int = 0
    user: str = ""
    password: str = ""
    digest: bool = False
    #: Whether each part says its length.
    length: bool = True
    content_type: str = "multipart/x-mixed-replace; boundary=frame"
    #: Instead of pictures.
    body: Body | None = None
    #: Connections that asked for `/camera` and were let in.
    served: int = 0
    #: When each picture was sent, in seconds since 1970.
    sent: list[float] = field(default_factory=list)
    port: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    _showing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/camera"

    def stop(self) -> None:
        """Send no more; after this `sent` stays as it is."""
        self.stopping.set()
        with self._showing:
            pass

    def show(self, write: Callable[[bytes], object]) -> None:
        """Send pictures until they are enough."""
        began, number = time.monotonic(), 0
        while not self.stopping.wait(max(0.0, began + number / self.fps - time.monotonic())):
            jpeg = stamped_jpeg(self.pictures[number % len(self.pictures)], number)
            length = f"Content-Length: {len(jpeg)}\r\n" if self.length else ""
            with self._showing:
                if self.stopping.is_set():
                    return
                self.sent.append(time.time())
                write(f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + jpeg + b"\r\n")
            number += 1
            if number == self.frames:
                return


@contextmanager
def mjpeg_camera(**options: object) -> Iterator[MjpegCamera]:
    """A camera for the time of a `with` block; see `MjpegCamera` for the options."""
    camera = MjpegCamera(**options)  # type: ignore[arg-type]

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/camera":
                self.send_error(404)
            elif not _may_watch(camera, self):
                self.send_response(401)
                digest = 'Digest realm="camera", qop="auth", nonce="0123456789abcdef", algorithm=MD5'
                self.send_header("WWW-Authenticate", digest if camera.digest else 'Basic realm="camera"')
                self.end_headers()
            else:
                camera.served += 1
                self.send_response(200)
                self.send_header("Content-Type", camera.content_type)
                self.end_headers()
                with suppress(OSError):
                    (camera.body or camera.show)(self.wfile.write)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answer) as server:
        camera.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield camera
        finally:
            camera.stopping.set()
            server.shutdown()
            thread.join()


def _may_watch(camera: MjpegCamera, request: BaseHTTPRequestHandler) -> bool:
    if not camera.user:
        return True
    given = request.headers.get("Authorization", "")
    if not camera.digest:
        return given == "Basic " + base64.b64encode(f"{camera.user}:{camera.password}".encode()).decode()
    fields = dict(part.strip().split("=", 1) for part in given.removeprefix("Digest ").split(",") if "=" in part)
    says = {name: value.strip('"') for name, value in fields.items()}
    # RFC 2617, section 3.2.2
    secret = _md5(f"{camera.user}:camera:{camera.password}")
    asked = _md5(f"GET:{says.get('uri', '')}")
    proof = ":".join([secret, says.get("nonce", ""), says.get("nc", ""), says.get("cnonce", ""), "auth", asked])
    return says.get("response") == _md5(proof)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
