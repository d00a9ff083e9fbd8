"""One running process of an exposed service: started as OSCAR starts its container, probed, ended in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from buoy.gateway.joblog import RollingLog
from buoy.gateway.processes import Limits, base_environment, kill_group, start
from buoy.gateway.run_script import over_limit, signal_name
from buoy.gateway.services import Service
from buoy.gateway.upstream import Connection, ask, connect

__all__ = ["Instance", "Passage"]

State = Literal["starting", "ready", "leaving", "ended"]

_STARTING_LOOK_S, _LOOK_S = 0.1, 0.25
#: Ask a ready one how it is doing after so many looks at its process.
_ASK_EVERY = 4
_ASK_S = 5.0
#: Kubernetes ends a container after so many failed probes, about 30 s.
_UNWELL_S = 30.0
#: What was accepted may take so long after an instance was asked to leave; `buoy serve` itself drains for 25 s.
_DRAIN_S, _END_S = 25.0, 30.0
_IDLE_CONNECTIONS = 32


class Passage:
    """A request that passes through to an instance; a stream may go on for ever, so it is cut when need be."""

    def __init__(self) -> None:
        self.stream = False
        self.cut = asyncio.Event()


class Instance:
    """A process of an exposed service, and what passes through to it. Lives in the event loop.

    Args:
        service: exposed.
        generation: of its definition; a restart begins another.
        folder: its own, removed at its end.
        data: where it may keep a state; for at most one instance of a service.
        log: of all instances of the service.
        limits: holds it to its memory.
        tell: called when its state changes.
    """

    def __init__(
        self,
        service: Service,
        generation: int,
        folder: Path,
        data: Path | None,
        log: RollingLog,
        limits: Limits,
        tell: Callable[[], None],
    ) -> None:
        assert service.exposure is not None
        self.service, self.exposure, self.generation, self.data = service, service.exposure, generation, data
        self.state: State = "starting"
        self.began_s = self.used_s = time.monotonic()
        self.ready_s: float | None = None
        self.passages: set[Passage] = set()
        #: Requests that wait or are looked at, by its own word; 0 where it has none.
        self.pending = 0
        self.reason = ""
        #: When it last refused a request for being too busy (429).
        self.refused_s = float("-inf")
        self.held: tuple[int, int] | None = None
        self.port = _free_port()
        self._folder, self._log, self._limits, self._tell = folder, log, limits, tell
        self._over = ""
        self._unwell_s: float | None = None
        self._idle: list[Connection] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process.

        Raises:
            OSError: it cannot be started.
        """
        self._process = await asyncio.to_thread(self._launch)
        self._log.say(f"started as process {self._process.pid}, port {self.port}")
        self._watching = asyncio.create_task(self._watch())

    def _launch(self) -> subprocess.Popen[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.data is not None:
            self.data.mkdir(parents=True, exist_ok=True)
        process = start(
            self._command(), folder=self._folder, env=self._environment(), stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._limits.watch(process.pid, self.service.memory_bytes, lambda: None, self._exceed)
        name = f"log-{self.service.name}"
        threading.Thread(target=self._log.copy, args=(process.stdout,), name=name, daemon=True).start()
        return process

    def _command(self) -> list[str]:
        if self.exposure.default_command:  # that of our images: functions/Containerfile
            return ["buoy", "serve", self.service.variables["BUOY_MODEL"]]
        script = self._folder / "script.sh"
        script.write_text(self.service.script, encoding="utf-8")
        script.chmod(0o700)
        if self.service.script.startswith("#!"):  # as OSCAR runs it here, unlike in jobs
            return ["/bin/sh", "-c", 'exec "$0"', str(script)]
        return ["/bin/sh", str(script)]

    def _environment(self) -> dict[str, str]:
        """As OSCAR gives it, and where to listen: containers have a port each for themselves, processes have not."""
        given = {
            "OSCAR_SERVICE_NAME": self.service.name,
            "OSCAR_SERVICE_TOKEN": self.service.token,
            "OSCAR_SERVICE_BASE_PATH": self.exposure.prefix,
            "BUOY_PORT": str(self.port),
        }
        if self.data is not None:
            given["BUOY_SERVE_DATA"] = str(self.data)
        return {**base_environment(), **self.service.variables, **given}

    # What passes through

    @contextmanager
    def passing(self) -> Iterator[Passage]:
        """Count a request, from when it was decided that it goes here."""
        passage = Passage()
        self.passages.add(passage)
        try:
            yield passage
        finally:
            self.passages.discard(passage)
            self.used_s = time.monotonic()

    async def connection(self, *, fresh: bool = False) -> Connection:
        """A connection to it, an idle one if there is one.

        Raises:
            Lost: it does not listen.
        """
        while self._idle and not fresh:
            kept = self._idle.pop()
            if kept.alive():
                return kept
            kept.close()
        return await connect(self.port)

    def keep(self, connection: Connection) -> None:
        """Take back a connection that can serve another request."""
        if self.state == "ready" and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    @property
    def load(self) -> int:
        """Requests on their way, streams left out."""
        return max(self.pending, sum(not passage.stream for passage in self.passages))

    @property
    def idle_s(self) -> float:
        """For how long nothing has passed through."""
        return 0.0 if self.passages or self.pending else time.monotonic() - self.used_s

    # Its life

    @property
    def alive(self) -> bool:
        """Tells whether it takes requests, or will."""
        return self.state in ("starting", "ready")

    @property
    def asked_to_leave(self) -> bool:
        """Tells whether its end was wished."""
        return self._leaving is not None

    async def _watch(self) -> None:
        assert self._process is not None
        looks = 0
        while self._process.poll() is None:
            if self.state == "starting" or (self.state == "ready" and looks % _ASK_EVERY == 0):
                await self._probe()
            looks += 1
            await asyncio.sleep(_STARTING_LOOK_S if self.state == "starting" else _LOOK_S)
        self._ended(self._process.returncode)

    async def _probe(self) -> None:
        token = [(b"authorization", b"Bearer " + self.service.token.encode())]
        status, _ = await ask(self.port, self.exposure.health_path, token, _ASK_S)
        if self.state not in ("starting", "ready"):
            return
        if 200 <= status < 400:
            self._unwell_s = None
            if self.state == "starting":
                self.state, self.ready_s = "ready", time.monotonic()
                self._log.say(f"ready after {self.ready_s - self.began_s:.1f} s")
                self._tell()
            if not self.passages:
                self.pending = 0  # all its requests come through here
            elif self.exposure.default_command:
                _, text = await ask(self.port, "/metrics", token, _ASK_S)
                self.pending = pending_in(text)
        elif self.state == "ready":
            self._unwell_s = self._unwell_s or time.monotonic()
            if time.monotonic() - self._unwell_s > _UNWELL_S:
                self._over = f"{self.exposure.health_path} answered {status or 'nothing'} for {_UNWELL_S:g} s"
                self._kill()

    def _exceed(self, over: str) -> None:
        self._over = over_limit(over, self.service, 0.0)

    def _ended(self, code: int) -> None:
        assert self._process is not None
        self._limits.release(self._process.pid)
        self._kill()  # its children, if it left some
        how = f"it was ended by {signal_name(-code)}" if code < 0 else f"it ended with exit code {code}"
        self.reason = self._over or how
        self._log.say(f"process {self._process.pid}: {self.reason}")
        self.state = "ended"
        for connection in self._idle:
            connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._tell()

    def leave(self, *, now: bool = False) -> asyncio.Task[None]:
        """Take no more requests, finish what was accepted, end; the task is done when the process is gone.

        Args:
            now: do not wait for anything that passes through.
        """
        if self.state not in ("leaving", "ended"):
            self.state = "leaving"
            self._tell()
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(now))
        return self._leaving

    async def _leave(self, now: bool) -> None:
        end_s = time.monotonic() + (0.0 if now else _DRAIN_S)
        while time.monotonic() < end_s and any(not passage.stream for passage in self.passages):
            await asyncio.sleep(0.02)
        for passage in self.passages:
            passage.cut.set()
        if self._process is None:
            self.state = "ended"
            self._tell()
            return
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)  # to it alone, as Kubernetes: it ends its children in its order
        end_s = time.monotonic() + _END_S
        while self._process.poll() is None and time.monotonic() < end_s:
            await asyncio.sleep(0.02)
        self._kill()
        if self._watching is not None:
            await self._watching

    def _kill(self) -> None:
        if self._process is not None:
            kill_group(self._process.pid)


def pending_in(metrics: bytes) -> int:
    """The sum of `nv_inference_pending_request_count` over all models in the text of `/metrics`."""
    lines = metrics.decode("utf-8", "replace").splitlines()
    found = [line.rpartition(" ")[2] for line in lines if line.startswith("nv_inference_pending_request_count")]
    return sum(int(float(value)) for value in found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
