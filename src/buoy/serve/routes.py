"""All addresses of the service in one table: the router and the OpenAPI document are made from it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from buoy import __version__
from buoy.serve import deepaas, oip, query, repository
from buoy.serve.live import page, sockets
from buoy.serve.live import routes as live
from buoy.serve.route import Route, Socket
from buoy.serve.service import PARAMETERS, Service

__all__ = ["ROUTES", "SOCKETS"]

_PICTURES = ("image/jpeg", "image/png", "image/tiff", "image/webp", "application/octet-stream", "multipart/form-data")


async def index(service: Service, request: Request) -> Response:
    """What is served here: the page for browsers, some lines for others."""
    if "text/html" in request.headers.get("accept", ""):
        return await page.page(service, request)
    lines = [f"buoy {__version__}", ""]
    for looker in service.lookers:
        known = looker.about.get("model", {})
        state = "ready" if looker.ready else "loading"
        words = (looker.name, known.get("version", ""), f"({known.get('maturity', 'unknown')})", state)
        lines.append(" ".join(word for word in words if word))
    base = service.settings.base_path
    lines += ["", f"POST {base}/predict", f"GET  {base}/streams", f"GET  {base}/openapi.json"]
    lines += [f"GET  {base}/v2/health/ready"]
    return PlainTextResponse("\n".join(lines) + "\n")


async def predict(service: Service, request: Request) -> Response:
    """Look at one picture."""
    asked = query.checked(request, PARAMETERS)
    form = query.negotiate(request.headers.get("accept", ""))
    answer = await service.predict(request, asked, form)
    return Response(answer.body, media_type=answer.media_type)


async def metrics(service: Service, request: Request) -> Response:
    """Counts and times, in the text format of Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def openapi(service: Service, request: Request) -> Response:
    """This document."""
    from buoy.serve.openapi import document  # only those who ask pay for it

    return JSONResponse(document(ROUTES, service.settings.base_path))


_LIVE = "Live streams"
_OIP, _DEEPAAS = "Open Inference Protocol", "DEEPaaS V2"
_ANSWERS = tuple(query.FORMS)
_TENSORS = ("application/json", "application/octet-stream")

ROUTES = (
    Route("GET", "/", index, gives=("text/plain", "text/html")),
    Route("POST", "/session", page.enter, takes=("application/x-www-form-urlencoded",), gives=(), status=303),
    Route("GET", "/ui/{file}", page.file, gives=("text/css", "text/javascript", "image/svg+xml")),
    Route("POST", "/predict", predict, PARAMETERS, _PICTURES, _ANSWERS),
    Route("POST", "/models/{model}/predict", predict, PARAMETERS, _PICTURES, _ANSWERS),
    Route("GET", "/metrics", metrics, gives=("text/plain",)),
    Route("GET", "/openapi.json", openapi),
    Route("GET", "/streams", live.shows, tag=_LIVE),
    Route("POST", "/streams", live.make, takes=("application/json",), tag=_LIVE, status=201),
    Route("GET", "/streams/{stream}", live.show, tag=_LIVE),
    Route("DELETE", "/streams/{stream}", live.remove, gives=(), tag=_LIVE, status=204),
    Route("GET", "/streams/{stream}/mjpeg", live.mjpeg, ("width",), gives=("multipart/x-mixed-replace",), tag=_LIVE),
    Route("GET", "/streams/{stream}/events", live.events, gives=("text/event-stream",), tag=_LIVE),
    Route("GET", "/streams/{stream}/gaps", live.gaps, tag=_LIVE),
    Route(
        "GET",
        "/streams/{stream}/series",
        live.series,
        ("window", "format", "since"),
        gives=("application/json", "text/csv", "application/x-netcdf"),
        tag=_LIVE,
    ),
    Route("GET", "/v2", oip.server, tag=_OIP),
    Route("GET", "/v2/health/live", oip.live, tag=_OIP),
    Route("GET", "/v2/health/ready", oip.ready, tag=_OIP),
    *(
        route
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        for route in (
            Route("GET", model, oip.metadata, tag=_OIP),
            Route("GET", f"{model}/ready", oip.model_ready, tag=_OIP),
            Route("POST", f"{model}/infer", oip.infer, ("deadline_ms",), _TENSORS, _TENSORS, _OIP),
        )
    ),
    Route("POST", "/v2/repository/index", repository.index, tag=_OIP),
    Route("POST", "/v2/repository/models/{model}/load", repository.load, tag=_OIP),
    Route("GET", "/swagger.json", deepaas.swagger, tag=_DEEPAAS),
    Route("GET", "/v2/models/", deepaas.models, tag=_DEEPAAS),
    Route("GET", "/v2/models/{model}/", deepaas.model, tag=_DEEPAAS),
    *(
        # the marketplace's user interface leaves the last slash out: DEEPaaS sends it on to the address with one
        Route("POST", path, deepaas.predict, deepaas.PARAMETERS, ("multipart/form-data",), _ANSWERS, _DEEPAAS)
        for path in ("/v2/models/{model}/predict/", "/v2/models/{model}/predict")
    ),
)

SOCKETS = (
    Socket("/streams/{stream}/ws", sockets.results),
    Socket("/streams/{stream}/push", sockets.push),
)
