"""A real `buoy serve` process on a free loopback port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

__all__ = ["Served", "serving"]


class Served:
    """The process, and what a test wants to know of it."""

    def __init__(self, models: tuple[Path, ...], options: tuple[str, ...], env: dict[str, str], log: Path) -> None:
        self.log_path = log
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("BUOY_", "OSCAR_", "OTEL_"))}
        command = [str(Path(sys.executable).with_name("buoy")), "serve", *map(str, models), "--port", "0", "--json"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *options], stdout=subprocess.PIPE, stderr=out, text=True, env={**clean, **env}
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith('{"url"'), f"buoy serve ended: {line}{log.read_text()[-2000:]}"
        said = json.loads(line)
        self.url: str = said["url"]
        self.grpc: str = said.get("grpc", "")

    def client(self, **settings: Any) -> httpx2.Client:
        """An HTTP client."""
        return httpx2.Client(base_url=self.url, timeout=60.0, **settings)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.partition("://")[2].partition("/")[0].rpartition(":")
        return host, int(port)

    @property
    def children(self) -> list[int]:
        """The inference processes."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its inference processes stand still within the block, so what it is sent meanwhile has to wait."""
        held = self.children
        for child in held:
            os.kill(child, signal.SIGSTOP)
        try:
            yield
        finally:
            for child in held:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGCONT)

    def open_files(self) -> list[str]:
        """What its descriptors point at."""
        found = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found.append(os.readlink(link))
            except FileNotFoundError:
                continue
        return found

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line that it wrote."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all samples with these labels."""
        with self.client() as http:
            lines = http.get("/metrics").text.splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        samples = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in samples if all(label in line for label in wanted))

    def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait until something is so."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s, f"waited in vain; log: {self.log_path.read_text()[-2000:]}"
            time.sleep(0.02)

    def stop(self) -> int:
        """End it as an orchestrator does; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def serving(folder: Path, *models: Path, options: tuple[str, ...] = (), **env: str) -> Iterator[Served]:
    """A service for the time of the block.

    Args:
        folder: for its log.
        models: their folders.
        options: more of the command line.
        env: more of the environment.
    """
    served = Served(models, options, env, folder / "serve.log")
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.terminate()
            try:
                served.process.wait(40)
            except subprocess.TimeoutExpired:
                served.process.kill()
                served.process.wait()
        assert served.process.stdout is not None
        served.process.stdout.close()
