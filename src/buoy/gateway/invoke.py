"""`/run` and `/job`: a service called over HTTP, with or without waiting for it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import re
import time
import uuid
import zipfile
from collections import deque
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from buoy.errors import ExistsError, JobError, UsageError
from buoy.gateway.dispatch import Outcome
from buoy.gateway.events import job_name, records
from buoy.gateway.http import body, compact
from buoy.gateway.node import Node
from buoy.gateway.services import Service
from buoy.gateway.state import Job, NewJob
from buoy.gateway.system import stamp

__all__ = ["Invoke"]

_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_EVENT_LIMIT_BYTES = 120_000


class Invoke:
    """The endpoints, for one node; `calls` is what `/system/logs` shows."""

    def __init__(self, node: Node, calls: deque[dict[str, Any]]) -> None:
        self._node = node
        self._calls = calls

    async def run(self, request: Request) -> Response:
        """Run the service on the body now: 200 and its output, or 500 and the end of its log."""
        began = time.time()
        service = self._node.service(request.path_params["service"])
        data = await body(request)
        job, waiting = await run_in_threadpool(self._queue_run, service, data)
        outcome = await asyncio.wrap_future(waiting)
        answer = _answer(request, outcome, storage_event=bool(job.bucket))
        answer.headers["X-Job-ID"] = job.name
        self._note(request, began, answer.status_code)
        return answer

    async def job(self, request: Request) -> Response:
        """Queue the body for the service: 201 and the job's name."""
        began = time.time()
        service = self._node.service(request.path_params["service"])
        data = await body(request)
        names = await run_in_threadpool(self._queue_job, service, data, request.headers.get("x-delegated-job-id", ""))
        self._note(request, began, 201)
        first = names[0]
        headers = {"X-Job-ID": first, "Location": f"/system/logs/{service.name}/{first}"}
        return compact({"job": first} if len(names) == 1 else {"job": first, "jobs": names}, 201, headers)

    def _queue_run(self, service: Service, data: bytes) -> tuple[Job, Any]:
        found = records(_json(data))
        if len(found) > 1:
            raise UsageError(f"/run answers one event, this has {len(found)}", f"post it to /job/{service.name}")
        name = job_name(service.name)
        waiting = self._node.dispatcher.expect(name)
        if found:
            obj = self._node.store.stat(found[0].bucket, found[0].key)
            new = NewJob(name, service.name, obj.bucket, obj.key, obj.etag, obj.size_bytes, "run", found[0].event)
            self._node.state.accept([new])
            self._node.dispatcher.wake()
        else:
            self._accept_payload(service, name, data, "run")
        job = self._node.state.job(name)
        assert job is not None
        return job, waiting

    def _queue_job(self, service: Service, data: bytes, wished: str) -> list[str]:
        found = records(_json(data))
        if found:
            return [self._node.intake.post(service, record, source="job").name for record in found]
        if wished and not _JOB_NAME.fullmatch(wished):
            raise UsageError(
                f"X-Delegated-Job-ID {wished!r} is not a DNS label", "1 to 63 lower-case letters, digits, hyphens"
            )
        name = wished or job_name(service.name)
        self._accept_payload(service, name, data, "job")
        return [name]

    def _accept_payload(self, service: Service, name: str, data: bytes, source: str) -> None:
        """Keep the payload, then the row that names it: in this order nothing can be lost."""
        payload, text = _payload(data)
        path = self._node.settings.data / "payloads" / name
        if self._node.state.job(name):
            raise ExistsError(f"there is a job {name!r} already", "its first delivery counts")
        with path.open("wb") as file:
            file.write(payload)
            if source == "job":
                file.flush()
                _fsync(file.fileno())
        new = NewJob(name, service.name, "", f"event-file-{uuid.uuid4()}", "", len(payload), source, text)
        self._node.state.accept([new], fsync=source == "job")
        self._node.dispatcher.wake()

    def _note(self, request: Request, began: float, status: int) -> None:
        client = request.client.host if request.client else ""
        took_s = time.time() - began
        self._calls.append(
            {
                "timestamp": stamp(began),
                "status": status,
                "latency": f"{took_s:.6f}s",
                "client_ip": client,
                "method": request.method,
                "path": request.url.path,
                "user": "",
                "raw": f"{stamp(began)} | {status} | {took_s:.6f}s | {client} | {request.method} {request.url.path}",
            }
        )


def _fsync(fd: int) -> None:
    import os

    os.fsync(fd)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data) if data.lstrip()[:1] == b"{" else None
    except (ValueError, RecursionError):
        return None


def _payload(data: bytes) -> tuple[bytes, str | None]:
    """What becomes the input file, and what becomes EVENT (`None`: too long, or no text).

    As the supervisor's UnknownEvent: a JSON object stays as it is, base64 is decoded. Where the
    supervisor ends with an exception (text or binary data that is no base64), the bytes are taken.
    """
    text: str | None = None
    if len(data) < _EVENT_LIMIT_BYTES:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None
    if isinstance(_json(data), dict):
        return data, text
    try:
        return base64.b64decode(b"".join(data.split()), validate=True), text
    except binascii.Error:
        return data, text


def _answer(request: Request, outcome: Outcome, *, storage_event: bool) -> Response:
    """As the watchdog and the supervisor answer: one file as base64, several as base64 of a zip, else the log."""
    if outcome.state != "Succeeded":
        lines = outcome.log.splitlines()[-20:]
        told = JobError(outcome.reason or "the script failed", "\n".join(lines))
        if "application/json" in request.headers.get("accept", ""):
            return compact({"error": told.record()}, 500)
        code = "" if outcome.exit_code is None else f"exit status {outcome.exit_code}\n"
        return PlainTextResponse(f"{code}{outcome.reason}\n{told.hint}\n", 500)
    if storage_event or not outcome.files:
        return PlainTextResponse(outcome.log)
    if len(outcome.files) == 1:
        return PlainTextResponse(base64.b64encode(outcome.files[0][1]).decode())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in outcome.files:
            archive.writestr(name, content)
    return PlainTextResponse(base64.b64encode(packed.getvalue()).decode())
