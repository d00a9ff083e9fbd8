"""The addresses of streams: making, listing and ending them, what they show and what they have seen."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from buoy.errors import UsageError
from buoy.serve import query
from buoy.serve.live import tables
from buoy.serve.live.outage import OUTAGE
from buoy.serve.live.viewing import Viewing
from buoy.serve.refusals import Unsupported
from buoy.serve.service import Service
from buoy.serve.upload import Limits, pieces

if TYPE_CHECKING:
    from buoy.serve.live.registry import Registry
    from buoy.serve.live.stream import Stream

__all__ = ["HEARTBEAT_S", "events", "gaps", "make", "mjpeg", "remove", "series", "show", "shows"]

_SPEC_BYTES = 1 << 20
#: Between two signs of life where nothing happens: proxies close what is silent for a minute.
HEARTBEAT_S = 15.0
_WINDOWS = ("1", "15", "60")
_WIDTH, _WIDTHS = 960, range(64, 4097)
_BOUNDARY = "frame"
#: Ends a part and begins the next. It follows each picture at once, as browsers show one when the head of the next is
#: there: every picture would be seen one too late. So the head cannot say how long its picture will be.
_NEXT = f"\r\n--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
#: Tells numbers of events of this run of the service from those of an earlier one.
_RUN = secrets.token_hex(4)


async def make(service: Service, request: Request) -> Response:
    """Make a stream, and begin to look at it."""
    from buoy.streams.spec import read_spec

    query.checked(request, ())
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "application/json"):
        raise Unsupported(f"a body of type {kind[:80]} is no stream", "send JSON, as application/json")
    body = b"".join([piece async for piece in pieces(request, Limits(_SPEC_BYTES))])
    live = service.live
    stream = await live.add(read_spec(body))
    note = {} if live.keeps else {"note": "it ends with the service: start that with --data DIR to keep streams"}
    location = f"{service.settings.base_path}/streams/{stream.spec.name}"
    return JSONResponse({**stream.view(), "kept": live.keeps, **note}, 201, {"Location": location})


async def shows(service: Service, request: Request) -> Response:
    """All streams."""
    query.checked(request, ())
    live = service.live
    return JSONResponse({"streams": [stream.view() for stream in live], "kept": live.keeps})


async def show(service: Service, request: Request) -> Response:
    """One stream: its state, counts and latest frame."""
    query.checked(request, ())
    return JSONResponse(_stream(service.live, request).view())


async def remove(service: Service, request: Request) -> Response:
    """End a stream, and forget it."""
    query.checked(request, ())
    await service.live.remove(request.path_params["stream"])
    return Response(status_code=204)


async def gaps(service: Service, request: Request) -> Response:
    """The times without frames, the latest last; one that goes on has no end."""
    query.checked(request, ())
    stream = _stream(service.live, request)
    found = [{"begin": gap.begin, "end": gap.end, "reason": gap.reason} for gap in stream.history.gaps]
    return JSONResponse({"stream": stream.spec.name, "gaps": found})


async def series(service: Service, request: Request) -> Response:
    """What was counted, by label and window of time, with the effort beside every value."""
    asked = query.checked(request, ("window", "format", "since"))
    stream = _stream(service.live, request)
    window = query.choice("window", asked.get("window", "1"), _WINDOWS)
    form = query.choice("format", asked.get("format", "json"), tables.FORMS)
    since = asked.get("since")
    if form == "json":
        rows = stream.history.series.rows(int(window), since)
        return JSONResponse({"stream": stream.spec.name, "window_minutes": int(window), "rows": rows})
    content = await tables.encode(form, stream, int(window), since)
    media_type, suffix = tables.FORMS[form]
    headers = {"Content-Disposition": f'attachment; filename="{stream.spec.name}-{window}min.{suffix}"'}
    return Response(content, media_type=media_type, headers=headers)


async def mjpeg(service: Service, request: Request) -> Response:
    """The live picture with what was found in it, for `<img>` and players."""
    asked = query.checked(request, ("width",))
    stream = _stream(service.live, request)
    pictures = _pictures(service.live, stream, _width(asked.get("width", str(_WIDTH))))
    return Viewing(pictures, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", service.live.viewers)


async def events(service: Service, request: Request) -> Response:
    """What happens in a stream, as server-sent events."""
    query.checked(request, ())
    stream = _stream(service.live, request)
    run, _, number = request.headers.get("last-event-id", "").partition("-")
    known = run == _RUN and number.isdecimal() and int(number) <= stream.events.last
    lines = _lines(stream, int(number) if known else stream.events.last)
    return Viewing(lines, "text/event-stream; charset=utf-8", service.live.viewers)


async def _pictures(live: Registry, stream: Stream, width: int) -> AsyncIterator[bytes]:
    yield _NEXT
    if stream.state != "live":
        yield OUTAGE + _NEXT
    number = 0
    with live.watching(stream, width):
        while not (news := await stream.pictures.after(number, HEARTBEAT_S)).ended:
            for at, picture in news.items:
                number = at
                yield picture + _NEXT


async def _lines(stream: Stream, number: int) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n" + _sse("state", stream.encode("state", stream.state_event()))
    while True:
        news = await stream.events.after(number, HEARTBEAT_S)
        if news.missed:
            yield _sse("missed", stream.encode("missed", {"count": news.missed}))
        for at, (event, text) in news.items:
            number = at
            yield b"id: %s-%d\n" % (_RUN.encode(), at) + _sse(event, text)
        if news.ended:
            return
        if not news.items:
            yield b": still here\n\n"


def _sse(event: str, text: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), text)


def _stream(live: Registry, request: Request) -> Stream:
    return live.find(request.path_params["stream"])


def _width(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and int(text) in _WIDTHS):
        raise UsageError(f"the parameter width is {text[:40]!r}", f"give pixels, {_WIDTHS.start} to {_WIDTHS.stop - 1}")
    return int(text)
