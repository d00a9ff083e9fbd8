"""The shapes of JSON answers, for the OpenAPI document: a client can be made from them, and a test holds us to them."""

from __future__ import annotations

from typing import Any

from buoy.serve.tensors import OUTPUTS

__all__ = ["answer_of", "components"]

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_NUMBERS = {"type": "array", "items": {"type": "integer"}}


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TENSOR = _object(name=_TEXT, datatype={"enum": ["UINT8", "FP32", "INT64", "BYTES"]}, shape=_NUMBERS)
_OWN = {
    "OipModel": _object(
        name=_TEXT, versions=_list(_TEXT), platform=_TEXT, inputs=_list(_TENSOR), outputs=_list(_TENSOR)
    ),
    "OipRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "maxLength": 512},
            "inputs": {**_list(_ref("OipInput")), "minItems": 1, "maxItems": 1},
            "outputs": {"type": ["array", "null"], "items": _object(name={"enum": list(OUTPUTS)})},
            "parameters": {"type": ["object", "null"], "properties": {"score": _FRACTION, "iou": _FRACTION}},
        },
    },
    "OipInput": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"enum": ["image"]},
            "datatype": {"enum": ["UINT8", "BYTES"]},
            "shape": {**_NUMBERS, "minItems": 1, "maxItems": 1},
            "data": {"type": "array", "items": {"type": ["integer", "string"]}},
            "parameters": {"type": ["object", "null"]},
        },
    },
    "OipAnswer": _object(model_name=_TEXT, model_version=_TEXT, outputs=_list(_TENSOR)),
    "OipLoaded": _object(name=_TEXT, version=_TEXT, state={"enum": ["READY", "UNAVAILABLE"]}, reason=_TEXT),
    "DeepaasModel": _object(
        id=_TEXT, name=_TEXT, links=_list(_object(rel=_TEXT, href=_TEXT)), description=_TEXT, version=_TEXT,
        license=_TEXT, labels=_list(_TEXT), maturity=_TEXT,
    ),
}  # fmt: skip

#: By the end of the path, the longest that fits.
_ANSWERS: dict[str, dict[str, Any]] = {
    "/predict": _ref("Result"),
    **dict.fromkeys(
        ("/predict/", "/v2/models/{model}/predict"), _object(status={"enum": ["OK"]}, predictions=_ref("Result"))
    ),
    "/v2": _object(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "/v2/health/live": _object(live=_FLAG),
    "/v2/health/ready": _object(ready=_FLAG),
    "/v2/models/{model}": _ref("OipModel"),
    "/versions/{version}": _ref("OipModel"),
    "/ready": _object(name=_TEXT, ready=_FLAG),
    "/infer": _ref("OipAnswer"),
    "/v2/repository/index": _list(_ref("OipLoaded")),
    "/load": _object(name=_TEXT, version=_TEXT),
    "/v2/models/": _object(models=_list(_ref("DeepaasModel"))),
    "/v2/models/{model}/": _ref("DeepaasModel"),
    "/swagger.json": _object(swagger={"enum": ["2.0"]}, basePath=_TEXT, paths={"type": "object"}),
    "/openapi.json": _object(openapi=_TEXT, info={"type": "object"}, paths={"type": "object"}),
}


def answer_of(path: str) -> dict[str, Any]:
    """What the JSON answer of a route looks like; empty if nothing is promised."""
    fitting = [end for end in _ANSWERS if path.endswith(end)]
    return _ANSWERS[max(fitting, key=len)] if fitting else {}


def components() -> dict[str, Any]:
    """The shapes that others refer to."""
    import msgspec

    from buoy.results import Result

    _, found = msgspec.json.schema_components([Result], ref_template="#/components/schemas/{name}")
    return {**found, **_OWN}
