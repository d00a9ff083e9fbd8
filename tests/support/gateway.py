"""A real `buoy up` process on a free loopback port, which a test may kill and start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import yaml

T = TypeVar("T")

#: A script that copies its input: what went in must come out.
COPY = '#!/bin/sh\nset -eu\ncp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/$(basename "$INPUT_FILE_PATH").out"\n'


class Gateway:
    """One data folder and the `buoy up` that serves it, if it runs."""

    def __init__(self, data: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.data = data
        self.options = options
        self.env = env or {}
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.url = ""

    def start(self, *, wait_s: float = 30.0) -> Gateway:
        """Start it, with the port it had before if it had one, and wait until it answers."""
        self.data.mkdir(parents=True, exist_ok=True)
        no_fdl = self.data.with_name(f"{self.data.name}-no-fdl")
        no_fdl.mkdir(exist_ok=True)
        options = [] if "--fdl" in self.options else ["--fdl", str(no_fdl)]
        command = [
            str(Path(sys.executable).with_name("buoy")),
            "up",
            "--data",
            str(self.data),
            "--port",
            str(self.port),
            "--json",
        ]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *options, *self.options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.env},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"buoy up ended: {self.log.read_text()[-2000:]}"
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    @property
    def log(self) -> Path:
        """What it said on stderr, over all its starts."""
        return self.data.with_name(f"{self.data.name}.log")

    def kill9(self) -> None:
        """End it without warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as a user does; gives the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    @property
    def credentials(self) -> dict[str, str]:
        """User, password and keys, as it made them."""
        read: dict[str, str] = yaml.safe_load((self.data / "credentials.yaml").read_text())
        return read

    def client(self) -> httpx2.Client:
        """An HTTP client of the administrator."""
        known = self.credentials
        return httpx2.Client(base_url=self.url, auth=(known["username"], known["password"]), timeout=60.0)

    def create(self, name: str, script: str = COPY, **fields: Any) -> dict[str, Any]:
        """Create a service with `<name>/input` and `<name>/output`; gives its definition."""
        with self.client() as http:
            answer = http.post("/system/services", json=service(name, script, **fields))
            assert answer.status_code == 201, answer.text
            found: dict[str, Any] = http.get(f"/system/services/{name}").json()
        return found

    def drop(self, bucket: str, key: str, content: bytes) -> Path:
        """Put a file into a bucket's folder as a careful program does: written beside it, then renamed."""
        target = self.data / "buckets" / bucket / key
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".{target.name}")
        hidden.write_bytes(content)
        hidden.rename(target)
        return target

    def inbox(self, service: str) -> Path:
        """Where files of a service's input lie, if its paths are the usual ones."""
        return self.data / "buckets" / service / "input"

    def output(self, service: str) -> Path:
        """Where its results lie."""
        return self.data / "buckets" / service / "output"

    def jobs(self, service: str = "", **query: Any) -> list[dict[str, Any]]:
        """The jobs as the page sees them, the latest first."""
        with self.client() as http:
            found = http.get("/page/jobs", params={"service": service, "limit": 500, **query}).json()
        jobs: list[dict[str, Any]] = found["jobs"]
        return jobs

    def counts(self, service: str = "") -> dict[str, int]:
        """How many jobs are in each state."""
        with self.client() as http:
            found: dict[str, int] = http.get("/page/jobs", params={"service": service, "limit": 1}).json()["counts"]
        return found

    def finished(self, number: int, service: str = "", timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Wait until so many jobs are over and none is left; gives all of them."""

        def over() -> bool:
            counts = self.counts(service)
            return counts["Succeeded"] + counts["Failed"] >= number and not counts["Pending"] + counts["Running"]

        until(over, timeout_s, lambda: f"{self.counts(service)}\n{self.log.read_text()[-3000:]}")
        return self.jobs(service)


def service(name: str, script: str = COPY, **fields: Any) -> dict[str, Any]:
    """The JSON of a small service."""
    return {
        "name": name,
        "cpu": "0.5",
        "memory": "256Mi",
        "image": "none",
        "script": script,
        "input": [{"storage_provider": "minio.default", "path": f"{name}/input"}],
        "output": [{"storage_provider": "minio.default", "path": f"{name}/output"}],
        **fields,
    }


def until(done: Callable[[], T], timeout_s: float = 120.0, say: Callable[[], object] = str) -> T:
    """Wait for what `done` gives once it is true; what `say` gives explains a failure."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {say()}"
        time.sleep(0.02)


@contextmanager
def running(data: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Gateway]:
    """A gateway for the length of a block."""
    gateway = Gateway(data, *options, env=env).start()
    try:
        yield gateway
    finally:
        if gateway.process is not None:
            gateway.stop()


@contextmanager
def start_gateway(data: Path, *, functions: Path, fdl: Path) -> Iterator[Gateway]:
    """A gateway with the models and services of two folders."""
    with running(data, "--fdl", str(fdl), env={"BUOY_FUNCTIONS": str(functions)}) as gateway:
        yield gateway


def up(*options: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A `buoy up` that is expected to end at once."""
    command = [str(Path(sys.executable).with_name("buoy")), "up", "--port", "0", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})})
