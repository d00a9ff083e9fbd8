"""The OpenAPI document, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from buoy import __version__
from buoy.serve.route import Route
from buoy.serve.shapes import answer_of, components

__all__ = ["PARAMETERS", "document"]

_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
#: Of queries: what may be given, and what it means.
PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "score": (_FRACTION, "Least score of a detection; the manifest has the default."),
    "conf": (_FRACTION, "Least score of a detection; the manifest has the default."),
    "iou": (_FRACTION, "Greatest overlap of two detections of a class."),
    "name": ({"type": "string", "maxLength": 512}, "What to call the picture in the result."),
    "accept": ({"type": "string"}, "Media type of the answer; before the Accept header."),
    "window": ({"type": "string", "enum": ["1", "15", "60"]}, "Length of the windows, in minutes."),
    "format": ({"type": "string", "enum": ["json", "csv", "netcdf"]}, "Of the answer."),
    "since": ({"type": "string", "format": "date-time"}, "Windows that ended before are left out."),
    "width": ({"type": "integer", "minimum": 64, "maximum": 4096}, "Of the pictures at most, in pixels."),
    "deadline_ms": (
        {"type": "integer", "minimum": 1, "maximum": 3_600_000},
        "How long the picture may wait for its turn; also the header X-Deadline-Ms.",
    ),
}
_STATUS = {
    "400": "A parameter or the form is wrong; the message names it.",
    "401": "No token, or a wrong one.",
    "403": "Another site's page had the browser send it.",
    "404": "There is no such model, stream or file.",
    "406": "None of the accepted media types can be had.",
    "408": "The body did not come in time.",
    "409": "What is there already stands in the way, or what is to replace it cannot be loaded.",
    "413": "The upload is too large; the message names the setting.",
    "415": "The body is neither a picture nor a form with one.",
    "422": "The picture cannot be read.",
    "429": "Too many wait; Retry-After says when to try again.",
    "500": "The inference process died over the picture.",
    "503": "Not ready, or about to end.",
    "504": "The deadline was over before the picture's turn came.",
}
#: Answered when the model has been loaded once.
_LOADED = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_TEXT_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def document(routes: Sequence[Route], base_path: str) -> dict[str, Any]:
    """The document, as data."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "buoy", "version": __version__, "description": "Pictures in, findings out."},
        "servers": [{"url": base_path or "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
            "schemas": {"Error": _error(), "TextError": _TEXT_ERROR, **components(), **_of_streams()},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    named = re.findall(r"{(\w+)}", route.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named
    ]
    for name in route.query:
        schema, about = PARAMETERS[name]
        parameters.append({"name": name, "in": "query", "description": about, "schema": schema})
    slashed = "_" * route.path.endswith("/")
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z0-9]+', '_', route.path).rstrip('_')}{slashed}",
        "summary": route.about,
        "tags": [route.tag],
        "parameters": parameters,
        "responses": {
            str(route.status): {"description": "Done.", "content": {each: _gives(route, each) for each in route.gives}}
        },
    }
    if route.open:
        operation["security"] = []
    if route.takes:
        operation["requestBody"] = {"required": True, "content": {each: _body(each, route.tag) for each in route.takes}}
    for status in _failures(route):
        operation["responses"][status] = _failure(status, route)
    return operation


def _gives(route: Route, media_type: str) -> dict[str, Any]:
    shape = answer_of(route.path) if media_type == "application/json" else {}
    return {"schema": shape} if shape else {}


def _failures(route: Route) -> list[str]:
    if route.takes:
        return [status for status in _STATUS if status != "409" or route.path == "/streams"]
    found = [] if route.open else ["400", "401"]
    found += ["404"] if "{" in route.path else []
    found += ["403", "409"] if route.method == "DELETE" else []
    found += ["409", "500"] if route.path.endswith("/load") else []
    return found + (["503"] if "ready" in route.path or route.path in _LOADED else [])


def _failure(status: str, route: Route) -> dict[str, Any]:
    if "ready" in route.path and status == "503":
        return {"description": "Not ready.", "content": {"application/json": {}}}
    as_text = route.tag.startswith("Open") and status != "401"
    schema = {"$ref": f"#/components/schemas/{'TextError' if as_text else 'Error'}"}
    found: dict[str, Any] = {"description": _STATUS[status], "content": {"application/json": {"schema": schema}}}
    if status in ("429", "503", "504"):
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return found


def _body(media_type: str, tag: str) -> dict[str, Any]:
    if media_type == "multipart/form-data":
        field = "files" if tag.startswith("DEEPaaS") else "file"
        properties = {field: {"type": "string", "contentMediaType": "application/octet-stream"}}
        return {"schema": {"type": "object", "required": [field], "properties": properties}}
    if media_type == "application/x-www-form-urlencoded":
        return {"schema": {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}}
    if tag == "Live streams":
        return {"schema": {"$ref": "#/components/schemas/StreamSpec"}}
    if media_type == "application/json":
        return {"schema": {"$ref": "#/components/schemas/OipRequest"}}
    return {}


def _of_streams() -> dict[str, Any]:
    import msgspec

    from buoy.streams.spec import StreamSpec

    _, components = msgspec.json.schema_components([StreamSpec], ref_template="#/components/schemas/{name}")
    return dict(components)


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    record = {
        "type": "object",
        "required": ["class", "message", "hint"],
        "properties": {"class": text, "message": text, "hint": text},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": record}}
