"""The page at `/`: its files, its data, its live events.

A browser on this machine is let in at once (the page is served to loopback names only, so that no
foreign site can ask through it); from elsewhere with the credentials. What changes something must come from the
page itself: its Origin is compared.
"""

from __future__ import annotations

import mimetypes
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from buoy import web
from buoy.errors import BuoyError, ExistsError, MissingError, UsageError
from buoy.gateway.buckets import send_object
from buoy.gateway.exposed_access import SESSION_COOKIE as _COOKIE
from buoy.gateway.fleet import Fleet
from buoy.gateway.http import Denied, body, compact, refuse_foreign, sync
from buoy.gateway.live import Live
from buoy.gateway.node import Node
from buoy.gateway.services import Service
from buoy.gateway.state import Job
from buoy.gateway.views import job_view, matches, result_view, service_view
from buoy.runs import read_notes
from buoy.web.multipart import Form

__all__ = ["page_routes"]

PAGES = Path(__file__).with_name("pages")
#: What the pages of all services have.
COMMON = Path(web.__file__).with_name("pages")
_UPLOAD_LIMIT_BYTES = 64 << 20
#: Results that one request looks through at most when it filters.
_LOOK_THROUGH = 2000

Endpoint = Callable[[Request], Awaitable[Response]]


def page_routes(node: Node) -> list[BaseRoute]:
    """The routes of the page."""
    page = _Page(node)
    visitor = page.visitor
    return [
        Route("/", page.index),
        Route("/page/login", page.login, methods=["POST"]),
        Route("/page/services", visitor(sync(page.services))),
        Route("/page/services/{service}/{action}", visitor(page.operate), methods=["POST"]),
        Route("/page/jobs", visitor(sync(page.jobs))),
        Route("/page/jobs/{job}/log", visitor(sync(page.log))),
        Route("/page/jobs/{job}/retry", visitor(sync(page.retry)), methods=["POST"]),
        Route("/page/runs", visitor(sync(page.runs))),
        Route("/page/results", visitor(sync(page.results))),
        Route("/page/objects/{bucket}/{key:path}", visitor(sync(page.object))),
        Route("/page/upload", visitor(page.upload), methods=["POST"]),
        Route("/page/export", visitor(sync(page.export))),
        Route("/page/events", visitor(Live(node).events)),
        Mount("/ui", _Files()),
    ]


class _Files(StaticFiles):
    """The page's own files; asked for anew (and mostly unchanged) each time, so that an update is seen at once."""

    def __init__(self) -> None:
        super().__init__(directory=PAGES)
        self.all_directories.append(COMMON)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class _Page:
    def __init__(self, node: Node) -> None:
        self._node = node

    # Who may come in

    def visitor(self, endpoint: Endpoint) -> Endpoint:
        """Let in who has the page's cookie, or the administrator's password."""

        async def checked(request: Request) -> Response:
            if not self._node.credentials.admin(request.headers.get("authorization", "")):
                if not self._node.credentials.in_session(request.cookies.get(_COOKIE, "")):
                    raise Denied("you are not signed in", "open the page at /")
                refuse_foreign(request, must_tell=True)
            return await endpoint(request)

        return checked

    async def index(self, request: Request) -> Response:
        """The page, or the form to sign in."""
        known = self._node.credentials.in_session(request.cookies.get(_COOKIE, ""))
        if known or (self._node.settings.loopback and _loopback_host(request)):
            response = FileResponse(PAGES / "index.html", headers={"Cache-Control": "no-cache"})
            return response if known else self._sign_in(response)
        return _login_form()

    async def login(self, request: Request) -> Response:
        """Exchange the credentials for a cookie."""
        refuse_foreign(request, must_tell=True)
        fields = parse_qs((await body(request, 10_000)).decode("utf-8", "replace"))
        name, password = fields.get("username", [""])[0], fields.get("password", [""])[0]
        if not self._node.credentials.knows(name, password):
            return _login_form(wrong=True)
        return self._sign_in(RedirectResponse("/", 303))

    def _sign_in(self, response: Response) -> Response:
        response.set_cookie(_COOKIE, self._node.credentials.session(), httponly=True, samesite="strict")
        return response

    # Data

    def services(self, request: Request, _: bytes) -> Response:
        """All services with what the page says about them."""
        return compact([service_view(self._node, service) for _, service in sorted(self._node.services.items())])

    async def operate(self, request: Request) -> Response:
        """Start, stop or restart an exposed service."""
        actions = {"start": Fleet.start, "stop": Fleet.stop, "restart": Fleet.restart}
        action = request.path_params["action"]
        if action not in actions:
            raise MissingError(f"a service cannot be asked to {action}", f"known: {', '.join(actions)}")
        service = self._node.service(request.path_params["service"])
        actions[action](self._node.exposed.fleet(service.name))
        return compact(service_view(self._node, service))

    def jobs(self, request: Request, _: bytes) -> Response:
        """Jobs, the latest first, and how many there are in each state; `seq` is where live events go on."""
        query = request.query_params
        service, seq = query.get("service", ""), self._node.state.seq
        found = self._node.state.jobs(
            service, state=query.get("state", ""), before=_number(request, "before"), limit=_limit(request)
        )
        counts = self._node.state.counts(service)
        return compact({"jobs": [job_view(job) for job in found], "counts": counts, "seq": seq})

    def runs(self, request: Request, _: bytes) -> Response:
        """The batch runs that were started or looked at by this machine's user, the latest first."""
        return compact({"runs": read_notes()})

    def log(self, request: Request, _: bytes) -> Response:
        """What a job wrote so far."""
        path = self._node.dispatcher.log_path(self._job(request).name)
        return FileResponse(path, media_type="text/plain") if path.is_file() else PlainTextResponse("")

    def retry(self, request: Request, _: bytes) -> Response:
        """Queue a finished job again."""
        job = self._job(request)
        if not job.bucket and not (self._node.settings.data / "payloads" / job.name).exists():
            raise ExistsError(f"job {job.name} cannot run again: what was posted to it is not kept", "post it again")
        if not self._node.state.retry(job.name):
            raise ExistsError(f"job {job.name} is {job.state}", "only a finished job can be run again")
        self._node.dispatcher.wake()
        return Response(status_code=202)

    def results(self, request: Request, _: bytes) -> Response:
        """Results, the latest first, those with a wanted label and score if asked."""
        query = request.query_params
        label, min_score = query.get("label", ""), _score(query.get("min_score", ""))
        before, limit = _number(request, "before"), _limit(request)
        shown: list[dict[str, Any]] = []
        looked = 0
        while True:
            found = self._node.state.results(query.get("service", ""), before=before, limit=limit)
            for output, job in found:
                before = output.id
                view = result_view(self._node, output, job)
                if matches(view["result"], label, min_score):
                    shown.append(view)
                    if len(shown) == limit:
                        return compact({"results": shown, "next": before})
            looked += len(found)
            if len(found) < limit:
                return compact({"results": shown, "next": None})
            if looked >= _LOOK_THROUGH:
                return compact({"results": shown, "next": before})

    def object(self, request: Request, _: bytes) -> Response:
        """An object, or a picture inside a zip; what is no picture may do nothing when it is opened."""
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        if entry := request.query_params.get("entry"):
            response = self._inside(bucket, key, entry)
        else:
            response = send_object(self._node, request, bucket, key)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("image/") or "svg" in kind:
            response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
        response.headers["Cache-Control"] = "private, no-cache"
        return response

    def _inside(self, bucket: str, key: str, entry: str) -> Response:
        from buoy.archive import picture_in

        with tempfile.TemporaryDirectory(dir=self._node.settings.data / "work") as folder:
            copy = Path(folder) / "archive"
            self._node.store.fetch(bucket, key, copy)
            picture = picture_in(copy, entry)
        return Response(picture, media_type=mimetypes.guess_type(entry)[0] or "application/octet-stream")

    def export(self, request: Request, _: bytes) -> Response:
        """All results of a service as one document."""
        from buoy.outputs import COLLECTED

        service = self._node.service(request.query_params.get("service", ""))
        name = request.query_params.get("format", "json")
        if name not in COLLECTED:
            raise UsageError(f"format {name!r}", f"known: {', '.join(COLLECTED)}")
        form = COLLECTED[name]
        headers = {"Content-Disposition": f'attachment; filename="{service.name}{form.suffix}"'}
        return StreamingResponse(form.encode(self._records(service)), headers=headers, media_type=form.media_type)

    def _records(self, service: Service) -> Iterator[Any]:
        from buoy.results import decode_record

        before = None
        while found := self._node.state.results(service.name, before=before, limit=200):
            for output, _ in found:
                before = output.id
                try:
                    yield decode_record(self._node.store.get(output.bucket, output.key))
                except (BuoyError, msgspec.DecodeError):
                    continue  # deleted since, or another program's JSON

    # Uploads

    async def upload(self, request: Request) -> Response:
        """Put the files of a form into the service's input path."""
        service = self._node.service(request.query_params.get("service", ""))
        if not service.inputs:
            raise UsageError(f"service {service.name} has no input path", f"post to /job/{service.name} instead")
        uploaded: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []

        def take(_: str, name: str, file: IO[bytes] | None) -> None:
            path = service.inputs[0]
            try:
                if file is None:
                    limit = _UPLOAD_LIMIT_BYTES >> 20
                    raise UsageError(
                        f"{name} is larger than {limit} MiB", "copy it into the bucket's folder, or use a presigned URL"
                    )
                with file:
                    file.seek(0)
                    put = self._node.store.put(path.bucket, path.key_prefix + name, file)  # type: ignore[arg-type]
            except BuoyError as error:
                refused.append({"name": name, "error": error.record()})
            else:
                uploaded.append({"name": name, "key": put.key, "size_bytes": put.size_bytes})

        work = self._node.settings.data / "work"
        form = Form(request.headers.get("content-type", ""), _UPLOAD_LIMIT_BYTES, take, work)
        try:
            async for piece in request.stream():
                await run_in_threadpool(form.feed, piece)
        finally:
            form.close()
        return compact({"uploaded": uploaded, "refused": refused})

    def _job(self, request: Request) -> Job:
        job = self._node.state.job(request.path_params["job"])
        if job is None:
            raise MissingError(f"there is no job {request.path_params['job']!r}")
        return job


def _login_form(*, wrong: bool = False) -> Response:
    text = (PAGES / "login.html").read_text(encoding="utf-8")
    told = '<p class="wrong" role="alert">User or password are wrong.</p>' if wrong else ""
    return HTMLResponse(text.replace("<!-- wrong -->", told), 401 if wrong else 200, {"Cache-Control": "no-store"})


def _loopback_host(request: Request) -> bool:
    """Tells whether the browser thinks it talks to this machine: a foreign name would be DNS rebinding."""
    return urlsplit(f"//{request.headers.get('host', '')}").hostname in ("127.0.0.1", "localhost", "::1")


def _limit(request: Request) -> int:
    return min(500, max(1, _number(request, "limit") or 50))


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if text and not text.isdecimal():
        raise UsageError(f"{name}={text}", "a whole number")
    return int(text) if text else None


def _score(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError:
        raise UsageError(f"min_score={text}", "a number from 0 to 1") from None
