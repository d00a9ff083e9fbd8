"""Live cameras: how long after a frame was sent its result is with a viewer, beyond decoding it and looking at it."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.book import Book, alternate, quantile
from bench.quiet import Watch
from bench.serve.candidates import Service, free_port
from bench.serve.load import Seen
from bench.serve.peak import CLIENTS
from bench.serve.setting import Setting

__all__ = ["live"]

_FPS, _LOAD, _SECONDS = 25.0, 0.8, 20.0
_NAME = "camera"


def live(setting: Setting, book: Book) -> None:
    """Cameras of 25 frames a second at 80 % of what the service can do; single pictures make up the rest."""
    pictures = setting.pictures
    with setting.buoy.serve(setting.networks["detector"], setting.folder) as service:
        service.until_answered(pictures[0].read_bytes())
        peaks = alternate(3, {"peak": lambda: service.load(pictures, 2.5, clients=CLIENTS).rate}, book)["peak"]
        peak = statistics.median(peaks)
        cameras = max(1, int(peak * _LOAD / _FPS))
        rest = peak * _LOAD - cameras * _FPS
        watch = Watch()
        viewers = [_Viewer(service, f"{_NAME}-{number}", pictures) for number in range(cameras)]
        others: list[Seen] = []
        if rest > 1:
            others.append(service.load(pictures, _SECONDS, rate=rest))
        for viewer in viewers:
            viewer.finish()
        if warning := watch.warning("live"):
            book.say(warning)
    note = f"{cameras} camera(s) of {_FPS:g} frames/s, 1920 x 1080 MJPEG, and {max(0.0, rest):.1f} pictures/s beside"
    note += f", of a peak of {peak:.1f}/s"
    if others:
        note += f": {others[0].statuses}"
    beyond = sorted(ms for viewer in viewers for ms in viewer.beyond_ms)
    ages = sorted(ms for viewer in viewers for ms in viewer.age_ms)
    interval = 1000 / _FPS
    book.add("live, frame sent to result, p50", "buoy", quantile(ages, 0.5), "ms", note=note)
    book.add("live, frame sent to result, p95", "buoy", quantile(ages, 0.95), "ms")
    book.add("live, beyond decoding and inference, p50", "buoy", quantile(beyond, 0.5) / interval, "intervals",
             goal="<= 1", note=f"{quantile(beyond, 0.5):.1f} ms")  # fmt: skip
    book.add("live, beyond decoding and inference, p95", "buoy", quantile(beyond, 0.95) / interval, "intervals",
             goal="<= 2", note=f"{quantile(beyond, 0.95):.1f} ms")  # fmt: skip
    for viewer in viewers:
        counts = viewer.counts
        balance = counts["received"] - counts["processed"] - sum(counts["dropped"].values()) - counts["in_flight"]
        book.say(f"{viewer.name}: sent {len(viewer.sent)}, {json.dumps(counts)}, unbalanced by {balance}")


class _Viewer:
    """A camera, the stream that looks at it, and a client of its results; begins at once."""

    def __init__(self, service: Service, name: str, pictures: list[Path]) -> None:
        self.name = name
        self.sent: list[float] = []
        #: By the number of the frame: when its result came, and what decoding and inference took, ms.
        self._seen: dict[int, tuple[float, float]] = {}
        self.counts: dict[str, Any] = {}
        port = free_port()
        self._camera = subprocess.Popen(
            [sys.executable, "-m", "bench.serve.camera", str(port), str(_FPS), str(_SECONDS), *map(str, pictures)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._camera.stdout
        self._said = self._camera.stdout
        self._said.readline()
        _post(service, {"name": name, "source": f"http://127.0.0.1:{port}/camera", "policy": "live"})
        self._thread = threading.Thread(target=self._watch, args=(service,), daemon=True)
        self._thread.start()

    def _watch(self, service: Service) -> None:
        for event, data in _events(service, self.name, _SECONDS + 10):
            now_s = time.time()
            self.counts = data.get("counts", self.counts)
            if event == "frame":
                record = data["record"]
                run = record["run"]
                self._seen[record["input"]["frame"]["number"]] = now_s, run["read_ms"] + run["infer_ms"]
            elif event == "state" and data.get("state") in ("gap", "ended"):
                return

    def finish(self) -> None:
        """Wait for the camera and the last result."""
        self.sent = json.loads(self._said.readline())
        self._thread.join(15)
        self._camera.wait(15)
        self._said.close()

    @property
    def age_ms(self) -> list[float]:
        """From when a frame was sent to its result, without the first second."""
        return [(seen_s - self.sent[at]) * 1000 for at, (seen_s, _) in self._seen.items() if at >= _FPS]

    @property
    def beyond_ms(self) -> list[float]:
        """The same, less what decoding and inference took."""
        return [(seen_s - self.sent[at]) * 1000 - work for at, (seen_s, work) in self._seen.items() if at >= _FPS]


def _post(service: Service, spec: dict[str, Any]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("POST", "/streams", json.dumps(spec), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 201:
        raise SystemExit(f"the stream was refused: {said!r}")


def _events(service: Service, name: str, patience_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events, until there are none for so long."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=patience_s)
    connection.request("GET", f"/streams/{name}/events")
    answer, event = connection.getresponse(), ""
    for line in answer:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            event = value
        elif key == "data":
            yield event, json.loads(value)
    connection.close()
