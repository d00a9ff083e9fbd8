"""The process that runs the network for a pilot: `python -m buoy.batch.child FOLDER FD [CORES]`.

FD is its end of a socket. On it come messages, see `buoy.wire`:

    {"id", "name"}                      a picture to look at
    {"id", "name", "every_s"}           the path of a video, of which to look at a frame every so often
and go, with the record as the body:
    {"ready": true, "lanes"} or {"ready": false, "error"}
    {"id", "item"}                      a record: the picture's, or a frame's of a video
    {"id", "end": true}                 there was the last record of a video
It may crash, hang or be killed: the pilot knows what it was about. When the pilot is gone, it leaves at once.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import msgspec

from buoy import wire
from buoy.batch import poison
from buoy.engine import Engine, Input, Outcome
from buoy.errors import InputError, as_buoy_error
from buoy.results import Failure, FrameInfo, InputInfo

__all__ = ["main"]


class _Child:
    """One engine at one end of the connection."""

    def __init__(self, engine: Engine, channel: socket.socket) -> None:
        self._engine, self._channel = engine, channel
        self._lock = threading.Lock()

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        """One message, whole, from any thread."""
        with self._lock:
            wire.send(self._channel, head, body)

    def run(self) -> None:
        """Answer until the pilot closes, or is gone."""
        with suppress(OSError), self._channel.makefile("rb") as stream:
            while message := wire.read(stream):
                head, body = message
                if "every_s" in head:
                    threading.Thread(target=self._watch, args=(head, Path(os.fsdecode(body))), daemon=True).start()
                else:
                    self._look(head, body)

    def _look(self, head: dict[str, Any], body: bytes) -> None:
        future = self._engine.submit(Input(head["name"], body))
        future.add_done_callback(lambda done: self._answer(head["id"], "", done))

    def _answer(self, number: int, item: str, future: Future[Outcome]) -> None:
        with suppress(OSError):
            self.send({"id": number, "item": item}, msgspec.json.encode(future.result().record))

    def _watch(self, head: dict[str, Any], path: Path) -> None:
        """Frames of a video, one after the other, a few of them on their way at once."""
        number, name = head["id"], head["name"]
        try:
            for outcome in self._engine.map(_frames(name, path, float(head["every_s"]))):
                self._tell(number, outcome)
        except Exception as error:
            told = as_buoy_error(error, name)
            info = InputInfo(name=name, size_bytes=path.stat().st_size, sha256="")
            self.send({"id": number, "item": ""}, msgspec.json.encode(Failure.of(told, info, self._engine.model.info)))
        self.send({"id": number, "end": True})

    def _tell(self, number: int, outcome: Outcome) -> None:
        frame = outcome.input.frame
        item = f"frame-{frame.number:08d}" if frame else ""
        self.send({"id": number, "item": item}, msgspec.json.encode(outcome.record))


def _frames(name: str, path: Path, every_s: float) -> Iterator[Input]:
    """A frame every so often, by the video's own clock.

    Raises:
        InputError: it cannot be read, or has no pictures.
    """
    from buoy.streams.sources.libav import load_av

    av = load_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{name} has no pictures in it", "is it a sound?")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            due_s = 0.0
            for number, frame in enumerate(container.decode(stream)):
                position_s = float(frame.time) if frame.time is not None else number * 0.04
                if position_s + 1e-6 < due_s:
                    continue
                due_s += every_s * (1 + max(0, int((position_s - due_s) / every_s)))
                captured = datetime.fromtimestamp(0, UTC).isoformat(timespec="milliseconds")
                info = FrameInfo(stream=name, number=number, captured=captured, position_s=round(position_s, 3))
                yield Input(f"{name}#t={position_s:.3f}", frame.to_ndarray(format="rgb24"), info)
    except av.error.FFmpegError as error:
        raise InputError(f"{name} cannot be read as a video: {error.strerror}", "upload it again") from error


def main(folder: str, descriptor: int, cores: int | None) -> int:
    """Load, answer; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a signal to the whole group is the pilot's business
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # when memory runs out, this process is the one to end, not the pilot
        Path("/proc/self/oom_score_adj").write_text("1000")
    channel = socket.socket(fileno=descriptor)
    try:
        cv2.setNumThreads(1)  # lanes are the threads here
        engine = Engine.open(Path(folder), cores=cores)
    except Exception as error:
        wire.send(channel, {"ready": False, "error": as_buoy_error(error, folder).record()})
        return 1
    poison.install(engine)
    child = _Child(engine, channel)
    child.send({"ready": True, "lanes": engine.lanes})
    child.run()
    os._exit(0)  # without waiting for a lane that may hang


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
