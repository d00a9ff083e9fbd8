"""OSCAR's `/system/logs` routes: states of jobs and what they wrote."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from buoy.errors import MissingError, UsageError
from buoy.gateway.http import compact, sync
from buoy.gateway.node import Node
from buoy.gateway.state import Job
from buoy.gateway.system import stamp

__all__ = ["Logs"]

_PAGE = 70


class Logs:
    """The endpoints, for one node. Jobs that somebody waits for (`/run`) are none of OSCAR's jobs."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.jobs, self.log = sync(self._jobs), sync(self._log)
        self.delete_jobs, self.delete_job = sync(self._delete_jobs), sync(self._delete_job)

    def _jobs(self, request: Request, _: bytes) -> Response:
        name = self._node.service(request.path_params["service"]).name
        page = request.query_params.get("page", "")
        if page and not page.isdecimal():
            raise UsageError(f"page={page}", "give back the next_page of the last answer")
        found = self._node.state.jobs(
            name, before=int(page) if page else None, limit=_PAGE + 1, sources=("event", "job")
        )
        answer: dict[str, Any] = {"jobs": {job.name: _times(job) for job in found[:_PAGE]}}
        if len(found) > _PAGE:
            answer["next_page"] = str(found[_PAGE - 1].id)
        return compact(answer)

    def _log(self, request: Request, _: bytes) -> Response:
        job = self._job(request)
        path = self._node.dispatcher.log_path(job.name)
        if path.is_file():
            return FileResponse(path, media_type="text/plain")
        return PlainTextResponse("")

    def _delete_jobs(self, request: Request, _: bytes) -> Response:
        name = self._node.service(request.path_params["service"]).name
        every = request.query_params.get("all", "").lower() == "true"
        for job in self._node.state.hide(name, every=every):
            self._drop(job)
        return Response(status_code=204)

    def _delete_job(self, request: Request, _: bytes) -> Response:
        job = self._job(request)
        self._node.state.hide(job.service, job.name)
        self._drop(job.name)
        return Response(status_code=204)

    def _drop(self, job: str) -> None:
        self._node.dispatcher.cancel(job)
        self._node.dispatcher.log_path(job).unlink(missing_ok=True)

    def _job(self, request: Request) -> Job:
        service = self._node.service(request.path_params["service"])
        name = request.path_params["job"]
        job = self._node.state.job(name)
        if job is None or job.service != service.name:
            raise MissingError(f"service {service.name} has no job {name!r}", "see GET /system/logs/<service>")
        return job


def _times(job: Job) -> dict[str, str]:
    """A job as OSCAR lists it; empty fields are left out, tests read this as a Python literal."""
    shown = {"status": job.state, "creation_time": stamp(job.created)}
    if job.started:
        shown["start_time"] = stamp(job.started)
    if job.finished:
        shown["finish_time"] = stamp(job.finished)
    return shown
