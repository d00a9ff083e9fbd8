"""The services that are measured, each started the same way, and the baselines without HTTP beside them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil

from bench.serve.load import Plan, Seen, form
from bench.work import PIN

__all__ = ["BUOY", "STARLETTE", "STARLETTE_DEFAULT", "Direct", "Kind", "Service", "ask_once", "free_port"]

_BUOY = Path(sys.executable).parent / "buoy"


@dataclass(frozen=True)
class Kind:
    """A way to serve a model."""

    name: str
    #: Of a model folder and a port.
    command: Callable[[Path, int], list[str]]
    #: Media type of the body, `form` for a form.
    body: str = "image/jpeg"
    path: str = "/predict"
    env: dict[str, str] = field(default_factory=dict)
    allocator: str = "default"

    def serve(self, model: Path, folder: Path, options: Sequence[str] = ()) -> Service:
        """Start it; not yet ready."""
        return Service(self, model, folder, options)


def _buoy(model: Path, port: int) -> list[str]:
    return [str(_BUOY), "serve", str(model), "--port", str(port)]


def _starlette(model: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "bench.serve.starlette_app", str(model), str(port)]


BUOY = Kind("buoy", _buoy, allocator="pinned")
STARLETTE = Kind("starlette", _starlette, env={PIN: "1"}, allocator="pinned")
STARLETTE_DEFAULT = Kind("starlette, default allocator", _starlette)


class Service:
    """A running service."""

    def __init__(self, kind: Kind, model: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self.kind = kind
        self.port = free_port()
        #: Where it may leave temporary files.
        self.scratch = Path(tempfile.mkdtemp(prefix=kind.name.split(",")[0], dir=folder))
        self._log = self.scratch.with_suffix(".log")
        self.begun_s = time.perf_counter()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*kind.command(model, self.port), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "TMPDIR": str(self.scratch), **kind.env},
            )  # fmt: skip

    def until_answered(self, picture: bytes, pause_s: float = 0.004) -> float:
        """Ask until it answers; seconds from its start to then."""
        while self.process.poll() is None:
            if ask_once(self, picture) == 200:
                return time.perf_counter() - self.begun_s
            if time.perf_counter() - self.begun_s > 120:
                break
            time.sleep(pause_s)
        raise SystemExit(f"{self.kind.name} does not answer: {self._log.read_text()[-3000:]}")

    def load(self, pictures: Sequence[Path], seconds: float, **more: object) -> Seen:
        """Have the load generator ask it; `more` as in `bench.serve.load.Plan`."""
        plan = Plan(
            host="127.0.0.1", port=self.port, path=self.kind.path, kind=self.kind.body,
            pictures=[str(path) for path in pictures], seconds=seconds, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "bench.serve.load"], input=msgspec.json.encode(plan), stdout=subprocess.PIPE
        )
        if done.returncode:
            raise SystemExit(f"the load generator failed with {self.kind.name}: {self._log.read_text()[-3000:]}")
        return msgspec.json.decode(done.stdout, type=Seen)

    def way(self) -> str:
        """How buoy runs the network, by its own account: callers x threads, and the largest batch."""
        with _connection(self.port) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        found = {line.split("{")[0]: line.rpartition(" ")[2] for line in lines if line.startswith("buoy_")}
        return f"{found['buoy_callers']}x{found['buoy_threads']}, batches of at most {found['buoy_batch_most']}"

    def tree(self) -> list[psutil.Process]:
        """Its process and all below it."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def left_files(self) -> list[str]:
        """Files that it has left in its temporary folder."""
        return [path.name for path in self.scratch.rglob("*") if path.is_file()]

    def stop(self) -> None:
        """End it and all below it."""
        tree = self.tree() if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for process in psutil.wait_procs(tree, 3)[1]:
            process.kill()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Direct:
    """One of `bench.serve.direct`, warm.

    Args:
        kind: `plain`, or callers x threads as `2x1`.
        pin: the allocator.
    """

    def __init__(self, kind: str, model: Path, pictures: Sequence[Path], *, pin: bool) -> None:
        self.begun_s = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.serve.direct", kind, str(model), *map(str, pictures)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, PIN: "1" if pin else ""},
        )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._said, self._told = self._process.stdout, self._process.stdin
        if not self._said.readline():
            raise SystemExit(f"the baseline {kind} ended")
        #: Start to the first result.
        self.start_s = time.perf_counter() - self.begun_s

    def rate(self, seconds: float) -> float:
        """Pictures a second."""
        self._told.write(f"{seconds}\n")
        self._told.flush()
        said = json.loads(self._said.readline())
        return float(said["count"] / said["seconds"])

    @property
    def rss_mib(self) -> float:
        """Its resident memory."""
        return psutil.Process(self._process.pid).memory_info().rss / (1 << 20)

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_: object) -> None:
        self._told.close()
        self._process.wait()
        self._said.close()


@contextmanager
def _connection(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def ask_once(service: Service, picture: bytes) -> int:
    """Ask on a new connection; the status, or 0 where nobody listens."""
    plan_kind, body = service.kind.body, picture
    if plan_kind == "form":
        plan_kind, body = form(picture)
    with _connection(service.port) as connection:
        try:
            connection.request("POST", service.kind.path, body, {"Content-Type": plan_kind})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        return int(link.getsockname()[1])
