"""The DEEPaaS V2 API, so that clients of the marketplace find what they know.

Paths end in a slash; without it they are the Open Inference Protocol's, all but `.../predict`. The picture comes as
the file `files` (or `data`) of a form. `predictions` is the `buoy.result/1` record. The arguments of the YOLO modules
that change nothing here are accepted, because their clients send them all; one that asks for something else than
what this model does is refused. Source: `deepaas/api/v2` of DEEPaaS, `api/schemas.py` of the YOLO modules.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from buoy.errors import UsageError
from buoy.serve import query
from buoy.serve.remote import Looker
from buoy.serve.service import Service

__all__ = ["PARAMETERS", "model", "models", "predict", "swagger"]

PARAMETERS = ("conf", "iou", "accept", "deadline_ms")
_WITHOUT_EFFECT = ("model", "imgsz", "show_labels", "show_conf", "show_boxes", "mlflow_fetch")
#: What else may be said, as long as it is this.
_ONLY = {"task_type": ("det",), "augment": ("false", "False", "0"), "classes": ("", "null", "None")}


async def models(service: Service, request: Request) -> Response:
    """The models and what is known of them."""
    query.checked(request, ())
    return JSONResponse({"models": [_about(looker, _href(service, looker)) for looker in service.lookers]})


async def model(service: Service, request: Request) -> Response:
    """One model and what is known of it."""
    query.checked(request, ())
    looker = service.looker(request)
    return JSONResponse(_about(looker, _href(service, looker)))


async def swagger(service: Service, request: Request) -> Response:
    """These routes, described in Swagger 2."""
    from buoy.serve.deepaas_swagger import document  # only those who ask pay for it

    query.checked(request, ())
    names = [looker.name for looker in service.lookers]
    return JSONResponse(document(names, service.settings.base_path, service.deadline_s))


async def predict(service: Service, request: Request) -> Response:
    """Look at one picture."""
    given = query.checked(request, (*PARAMETERS, *_WITHOUT_EFFECT, *_ONLY))
    for key, allowed in _ONLY.items():
        if given.get(key, allowed[0]) not in allowed:
            raise UsageError(f"the parameter {key} is {given[key][:40]!r}", f"this model knows only: {allowed[0]}")
    form = query.negotiate(given.get("accept") or request.headers.get("accept", ""))
    asked: dict[str, str] = {key: given[key] for key in ("iou", "deadline_ms") if key in given}
    if "conf" in given:
        asked["score"] = str(query.fraction("conf", given["conf"]))
    answer = await service.predict(request, asked, form)
    if form != "json":
        return Response(answer.body, media_type=answer.media_type)
    wrapped = b'{"status": "OK", "predictions": %s}\n' % answer.body.strip()
    return Response(wrapped, media_type="application/json")


def _href(service: Service, looker: Looker) -> str:
    return f"{service.settings.base_path}/v2/models/{looker.name}"


def _about(looker: Looker, href: str) -> dict[str, Any]:
    known = looker.about.get("model", {})
    return {
        "id": looker.name,
        "name": looker.name,
        "links": [{"rel": "self", "href": href}],
        "description": known.get("title", ""),
        "version": known.get("version", ""),
        "license": known.get("licence", ""),
        "labels": known.get("labels", []),
        "maturity": known.get("maturity", ""),
    }
