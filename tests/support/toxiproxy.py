"""Toxiproxy: a network that is slow, cuts and resets, between a program and a port of this machine."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from support.need import program
from support.rtsp import free_port

__all__ = ["Toxiproxy", "toxiproxy"]

_numbers = itertools.count(1)


class Toxiproxy:
    """One proxied port; faults are added while it runs."""

    def __init__(self, api: str, endpoint: str) -> None:
        self._http = httpx2.Client(base_url=api, timeout=10.0, headers={"User-Agent": "toxiproxy-tests"})
        self.endpoint = endpoint

    def add(self, kind: str, attributes: dict[str, Any], *, share: float = 1.0, upstream: bool = False) -> None:
        """A fault for so large a share of the connections, of what comes back or of what is sent."""
        stream = "upstream" if upstream else "downstream"
        body = {
            "name": f"{kind}-{next(_numbers)}",
            "type": kind,
            "stream": stream,
            "toxicity": share,
            "attributes": attributes,
        }
        self._http.post("/proxies/store/toxics", json=body).raise_for_status()

    def enable(self, on: bool) -> None:
        """Whether anything is let through, and connections taken, at all."""
        self._http.post("/proxies/store", json={"enabled": on}).raise_for_status()

    def close(self) -> None:
        """Let its connections go."""
        self._http.close()


@contextmanager
def toxiproxy(port: int) -> Iterator[Toxiproxy]:
    """A Toxiproxy before a port for the length of a block; skips the test where there is none."""
    ours, theirs = free_port(), free_port()
    command = [program("toxiproxy-server"), "-host", "127.0.0.1", "-port", str(theirs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = Toxiproxy(f"http://127.0.0.1:{theirs}", f"http://127.0.0.1:{ours}")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                proxy._http.get("/version")
                break
            except httpx2.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        body = {"name": "store", "listen": f"127.0.0.1:{ours}", "upstream": f"127.0.0.1:{port}", "enabled": True}
        proxy._http.post("/proxies", json=body).raise_for_status()
        yield proxy
    finally:
        proxy.close()
        process.terminate()
        process.wait(10)
