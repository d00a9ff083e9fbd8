"""Speaks with a running `buoy up`, found through its data folder or BUOY_URL."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from buoy.errors import BuoyError, MissingError, StoreError, UsageError

__all__ = ["Gateway"]


class Gateway:
    """The HTTP API of one gateway.

    Args:
        data: its data folder, for where it is and for the password; BUOY_URL, BUOY_USER and
            BUOY_PASSWORD come first.
        wait_s: how long it may take to come up, if it is being started.

    Raises:
        UsageError: nothing says where it is.
    """

    def __init__(self, data: Path, wait_s: float = 0.0) -> None:
        self.url, user, password = _address(data, wait_s)
        self._http = httpx2.Client(base_url=self.url, auth=(user, password), timeout=60.0)
        #: Signed URLs need no password, and may be another server's.
        self._store = httpx2.Client(timeout=None)

    def get(self, path: str, **query: object) -> Any:
        """What a route answers."""
        answer = self._send("GET", path, params={key: str(value) for key, value in query.items()})
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def upload(self, bucket: str, key: str, file: Path) -> None:
        """Put a file of any size, as any client of OSCAR does: by a signed URL."""
        ask = {"object_key": key, "operation": "upload", "expires_in": 3600}
        url = self._send("POST", f"/system/buckets/{bucket}/presign", json=ask).json()["url"]
        try:
            with file.open("rb") as content:
                headers = {"Content-Length": str(file.stat().st_size)}
                answer = self._store.put(url, content=content, headers=headers)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}", "name files that can be read") from None
        except httpx2.HTTPError as error:
            raise StoreError(f"{file}: {error}", "is the store running?", retry=True) from None
        _check(answer)

    @contextmanager
    def events(self, since: int) -> Iterator[Iterator[tuple[int | None, str, Any]]]:
        """Changes after that number, as they come: (number of the change at its end, name, data)."""
        try:
            with self._http.stream("GET", f"/page/events?since={since}") as answer:
                _check(answer)
                yield _events(answer.iter_lines())
        except httpx2.HTTPError as error:
            raise self._gone(error) from None

    def _send(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, path, headers={"Accept": "application/json"}, **how)
        except httpx2.HTTPError as error:
            raise self._gone(error) from None
        _check(answer)
        return answer

    def _gone(self, error: Exception) -> StoreError:
        return StoreError(f"no buoy answers at {self.url}: {error}", "start it: buoy up", retry=True)


def _address(data: Path, wait_s: float) -> tuple[str, str, str]:
    known = os.environ
    if url := known.get("BUOY_URL"):
        return url.rstrip("/"), known.get("BUOY_USER", "oscar"), known.get("BUOY_PASSWORD", "")
    deadline = time.monotonic() + wait_s
    while True:
        running = _read(data / "up.json")
        if running and _answers(running["url"]):
            secrets = yaml.safe_load((data / "credentials.yaml").read_text(encoding="utf-8"))
            return running["url"], secrets["username"], secrets["password"]
        if time.monotonic() >= deadline:
            hint = "start it with the same --data, or set BUOY_URL, BUOY_USER and BUOY_PASSWORD"
            raise UsageError(f"no buoy runs in {data}", hint)
        time.sleep(0.1)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def _check(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        told = answer.json()["error"]
        message, hint = str(told["message"]), str(told["hint"])
    except (ValueError, KeyError, TypeError):
        message, hint = answer.text or f"{answer.request.url}: HTTP status {answer.status_code}", ""
    kind: type[BuoyError] = MissingError if answer.status_code == 404 else UsageError
    raise (kind if answer.status_code < 500 else StoreError)(message, hint)


def _events(lines: Iterator[str]) -> Iterator[tuple[int | None, str, Any]]:
    """Source: the HTML standard, 9.2.6 (of it, what our gateway sends)."""
    number, name, data = None, "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "id":
            number = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            data = value
        elif line.startswith(": "):
            yield None, "heartbeat", None
        elif not line and name:
            yield number, name, json.loads(data)
            number, name, data = None, "", ""
