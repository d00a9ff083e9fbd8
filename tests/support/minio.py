"""A real MinIO for tests: a process on a free port of the loopback, with data in a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from buoy.store.s3 import S3Store
from support.need import program

_ACCESS_KEY = "buoy-tests"
_SECRET_KEY = "buoy-tests-secret"
_START_S = 60.0


@dataclass
class MinioServer:
    """A MinIO that this process has started; `stop` or `kill` it, then perhaps `restart`."""

    port: int
    data_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    access_key: str = _ACCESS_KEY
    secret_key: str = _SECRET_KEY
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.data_dir / "minio.log"

    def restart(self) -> None:
        """Start the server on its port and data, after ending the process that is there."""
        self.stop()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log, env=self._environment())
        ends = time.monotonic() + _START_S
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise RuntimeError(f"MinIO did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process properly."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        """End the process as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _command(self) -> list[str]:
        folders = [str(self.data_dir / "certs"), str(self.data_dir / "data")]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        return [program("minio"), "--certs-dir", folders[0], "server", "--quiet", "--address", address, folders[1]]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MINIO_")}
        return {
            **inherited,
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            **self.env,
        }

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/minio/health/cluster")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def start_minio(data_dir: Path, env: Mapping[str, str] | None = None) -> MinioServer:
    """Start a MinIO and wait until it answers; skips the test where there is none.

    Args:
        data_dir: its folder, made if need be; objects are in `data`, what it says in `minio.log`.
        env: more environment, such as `MINIO_NOTIFY_WEBHOOK_ENABLE_<id>`.
    """
    program("minio")
    server = MinioServer(_free_port(), data_dir, dict(env or {}))
    server.restart()
    return server


@contextlib.contextmanager
def minio(data_dir: Path, env: Mapping[str, str] | None = None) -> Iterator[MinioServer]:
    """A MinIO for the time of a `with` block."""
    server = start_minio(data_dir, env)
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def opened(server: MinioServer, endpoint: str = "", secret_key: str = "") -> Iterator[S3Store]:
    """A store on it, or on what stands at another address before it."""
    store = S3Store(endpoint or server.endpoint, server.access_key, secret_key or server.secret_key)
    try:
        yield store
    finally:
        store.close()
