"""A real RTSP camera for tests: Debian's GStreamer server in a process of its own, H.264 over loopback.

Each picture it sends has a number and the time at which it was made in its first rows (`support.stamp`).
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from support.need import absent

_SYSTEM_PYTHON = "/usr/bin/python3"
_SCRIPT = Path(__file__).with_name("rtsp_server.py")
_START_S = 60.0


@dataclass
class RtspCamera:
    """A camera that this process has started. `kill`, `freeze` or `restart` it, with another size if you like."""

    folder: Path
    pictures: Sequence[NDArray[np.uint8]]
    width: int = 640
    height: int = 360
    fps: int = 25
    #: A key frame every so many frames.
    key_every: int = 25
    user: str = ""
    password: str = ""
    digest: bool = False
    #: Files in PEM form; with them it speaks rtsps.
    certificate: str = ""
    key: str = ""
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'rtsps' if self.certificate else 'rtsp'}://127.0.0.1:{self.port}/camera"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.kill()
        settings = {
            name: getattr(self, name)
            for name in (*("port", "width", "height", "fps", "key_every", "user", "password", "digest"),
                         *("certificate", "key"))
        }  # fmt: skip
        settings["frames"] = str(self._frames())
        with (self.folder / "rtsp.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_SYSTEM_PYTHON, str(_SCRIPT), json.dumps(settings)], stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], _START_S)
        if not readable or self.process.stdout.readline() != b"ready\n":
            self.kill()
            raise RuntimeError(f"the camera did not start:\n{(self.folder / 'rtsp.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        """Stop it where it stands: connections stay, nothing comes."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _frames(self) -> Path:
        """The pictures as the server reads them."""
        path = self.folder / f"frames-{self.width}x{self.height}.rgb"
        if not path.exists():
            with path.open("wb") as file:
                for picture in self.pictures:
                    file.write(cv2.resize(picture, (self.width, self.height)).tobytes())
        return path


@contextmanager
def rtsp_camera(
    folder: Path, pictures: Sequence[NDArray[np.uint8]] | None = None, **options: Any
) -> Iterator[RtspCamera]:
    """A camera for the time of a `with` block; skips the test where GStreamer's server is absent.

    Args:
        folder: for its files.
        pictures: (H, W, 3) uint8 RGB, shown again and again; scaled to its size. A moving bar by default.
        options: see `RtspCamera`.
    """
    if not _installed():
        absent("GStreamer's RTSP server", "run scripts/tools as root, which installs it")
    folder.mkdir(parents=True, exist_ok=True)
    camera = RtspCamera(folder, moving_bar() if pictures is None else pictures, **options)
    camera.start()
    try:
        yield camera
    finally:
        camera.kill()


def moving_bar(count: int = 10) -> list[NDArray[np.uint8]]:
    """Pictures of 640 x 360 with a light bar that moves over a slope of grey."""
    slope = np.tile(np.linspace(40, 160, 640).astype(np.uint8)[None, :, None], (360, 1, 3))
    pictures = []
    for i in range(count):
        picture = slope.copy()
        picture[100:260, i * 640 // count : i * 640 // count + 40] = (250, 240, 200)
        pictures.append(picture)
    return pictures


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def _installed() -> bool:
    probe = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
        "Gst.init(None); assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
    )
    try:
        return subprocess.run([_SYSTEM_PYTHON, "-c", probe], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False
