"""The process that runs one model for the service: `python -m buoy.serve.child FOLDER FD [CALLERS]`.

FD is its end of a socket; see `buoy.serve.channel` for what is said on it. What fails with one picture is told
for that picture; only a crash ends the process, and the service starts another.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from buoy import machine, wire
from buoy.engine import Engine, Input, Outcome
from buoy.errors import BusyError, DeadlineError, as_buoy_error
from buoy.image import Pixels
from buoy.results import Result, encode_record
from buoy.serve import log
from buoy.tasks import Thresholds

if TYPE_CHECKING:
    from buoy.streams.host import Host

__all__ = ["main"]


#: So often memory that is not used is given back.
_GIVE_BACK_S = 30.0


class _Form(NamedTuple):
    media_type: str
    draws: bool = False


#: What an answer can be: the record, its rows, or the picture with the findings on it.
_FORMS = {
    "json": _Form("application/json"),
    "csv": _Form("text/csv; charset=utf-8"),
    "jpeg": _Form("image/jpeg", draws=True),
    "png": _Form("image/png", draws=True),
}


class _Service:
    """One engine at one end of the socket."""

    def __init__(self, engine: Engine, channel: socket.socket) -> None:
        self._engine = engine
        self._channel = channel
        self._lock = threading.Lock()
        self._futures: dict[int, Future[Outcome]] = {}
        self._streams: Host | None = None

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        """One message, whole, from any thread. Without a reader there is nobody to tell."""
        with self._lock, suppress(OSError):
            wire.send(self._channel, head, body)

    def run(self) -> None:
        """Answer until the stream ends."""
        with self._channel.makefile("rb") as stream:
            while message := wire.read(stream):
                head, body = message
                if head["op"] == "look":
                    self._look(head, body)
                elif head["op"] == "cancel":
                    if future := self._futures.get(head["id"]):
                        future.cancel()
                else:
                    self._host().take(head, body)
            if self._streams:
                self._streams.close()

    def _host(self) -> Host:
        """The streams, which most services never have."""
        if self._streams is None:
            from buoy.streams.host import Host

            self._streams = Host(self._engine, self.send)
        return self._streams

    def _look(self, head: dict[str, Any], body: bytes) -> None:
        number, default = head["id"], self._engine.model.thresholds
        try:
            thresholds = Thresholds(head.get("score", default.score), head.get("iou", default.iou))
            future = self._engine.submit(
                Input(head["name"], body),
                deadline_s=head["expires_s"] - time.monotonic(),  # below 0 it is refused
                thresholds=thresholds,
                keep_pixels=_FORMS[head["form"]].draws,
            )
        except BusyError:
            self._drop(number, "late")
            return
        except Exception as error:
            self._fail(number, error)
            return
        self._futures[number] = future
        future.add_done_callback(lambda done: self._answer(number, head["form"], done))

    def _answer(self, number: int, form: str, future: Future[Outcome]) -> None:
        """Encode in the lane that found it, and send."""
        self._futures.pop(number, None)
        if future.cancelled():
            self._drop(number, "cancelled")
            return
        try:
            outcome, began_s = future.result(), time.perf_counter()
            record = outcome.record
            if not isinstance(record, Result):
                if record.error.class_ == DeadlineError.__name__:
                    self._drop(number, "late")
                    return
                error = {"class": record.error.class_, "message": record.error.message, "hint": record.error.hint}
                self.send({"id": number, "outcome": "failed", "error": error, "spent": {}})
                return
            body = _encode(form, record, outcome.pixels)
            spent = {
                "read_ms": record.run.read_ms,
                "infer_ms": record.run.infer_ms,
                "total_ms": record.run.total_ms,
                "encode_ms": round((time.perf_counter() - began_s) * 1000, 2),
                "batch": record.run.batch,
            }
            head = {"id": number, "outcome": "done", "media_type": _FORMS[form].media_type, "spent": spent}
            self.send({**head, "version": record.model.version}, body)
        except Exception as error:
            self._fail(number, error)

    def _drop(self, number: int, outcome: str) -> None:
        self.send({"id": number, "outcome": outcome, "spent": {}})

    def _fail(self, number: int, error: Exception) -> None:
        told = as_buoy_error(error, "buoy serve")
        self.send({"id": number, "outcome": "failed", "error": told.record(), "spent": {}})


def _encode(form: str, record: Result, pixels: Pixels | None) -> bytes:
    if form == "json":
        return encode_record(record)
    from buoy.outputs import FORMATS, drawn

    if form == "png":
        assert pixels is not None
        return cv2.imencode(".png", cv2.cvtColor(drawn.draw(record, pixels), cv2.COLOR_RGB2BGR))[1].tobytes()
    return FORMATS["drawn" if form == "jpeg" else form].encode(record, pixels)


def main(folder: str, descriptor: int, callers: int | None) -> int:
    """Load, warm up, answer; returns the exit code."""
    # A signal to the whole group or unit is the service's business: it closes the stream when it is done with us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log.start()
    began_s = time.perf_counter()
    channel = socket.socket(fileno=descriptor)
    try:
        cv2.setNumThreads(1)  # lanes are the threads here
        _stand_back()
        engine = Engine.open(Path(folder), callers=callers, measure=True)
        loaded_s = time.perf_counter()
        _warm_up(engine)
    except Exception as error:
        told = as_buoy_error(error, folder)
        wire.send(channel, {"ready": False, "error": told.record()})
        return 1
    with channel, engine:
        service = _Service(engine, channel)
        service.send(_introduction(engine, loaded_s - began_s, time.perf_counter() - loaded_s))
        threading.Thread(target=_give_back, daemon=True).start()
        service.run()
        engine.close()
    return 0


def _stand_back() -> None:
    """Let the service go first: when all cores infer, it would be late with refusing and with the next picture."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.nice(5)


def _give_back() -> None:
    while True:
        time.sleep(_GIVE_BACK_S)
        machine.give_back()


def _warm_up(engine: Engine) -> None:
    """The first run allocates what the network needs and finds out what does not work."""
    height, width = engine.model.manifest.input.size
    noise = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    picture = cv2.imencode(".jpg", cv2.resize(noise, (width, height)))[1].tobytes()
    engine.model.predict(picture, name="warm-up")


def _introduction(engine: Engine, load_s: float, warm_up_s: float) -> dict[str, Any]:
    model = engine.model
    return {
        "ready": True,
        "pid": os.getpid(),
        "lanes": engine.lanes,
        "callers": model.session.callers,
        "threads": model.session.threads,
        "batch": model.session.batch,
        "provider": model.session.provider,
        "runtime": model.session.runtime,
        "load_s": round(load_s, 4),
        "warm_up_s": round(warm_up_s, 4),
        "model": {
            "name": model.info.name,
            "version": model.info.version,
            "weights_sha256": model.info.weights_sha256,
            "maturity": model.info.maturity,
            "title": model.manifest.title,
            "task": model.manifest.task,
            "licence": model.manifest.licence,
            "labels": [each if isinstance(each, str) else each.label for each in model.manifest.classes],
            "score": model.thresholds.score,
            "iou": model.thresholds.iou,
        },
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
