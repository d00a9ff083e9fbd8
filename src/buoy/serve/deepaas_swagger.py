"""The Swagger 2 document of the DEEPaaS routes, with which the marketplace's user interface begins.

It makes a form of the first `.../predict/`: a field of each parameter, a tab of each type in `produces`. Some of its
habits are met here (`ui_utils.py` of ai4os/deepaas_ui):

- It knows fields by their place, and shows none for `accept`: whatever came after that would be taken for another.
- It ends at a type that it cannot show: text/csv is answered, and not in the document.
- Of a whole number between bounds it makes a slider, which sends the least one unless there is a default.
- With `image` in its description, a file can be seen before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from buoy import __version__
from buoy.serve import deepaas, query
from buoy.serve.openapi import PARAMETERS

__all__ = ["document"]

_SHOWN = tuple(kind for kind in query.FORMS if not kind.startswith("text/"))
_FILE = {"name": "files", "in": "formData", "type": "file", "required": True, "description": "The image to look at."}
_REFUSED = {"description": "It is refused; the message says why."}


def document(models: Iterable[str], base_path: str, deadline_s: float) -> dict[str, Any]:
    """The document, as data.

    Args:
        models: their names.
        base_path: where a proxy shows us; paths do not have it.
        deadline_s: that of requests which name none.
    """
    paths = {"/v2/models/": {"get": _operation(deepaas.models)}}
    for model in models:
        paths[f"/v2/models/{model}/"] = {"get": _operation(deepaas.model)}
        paths[f"/v2/models/{model}/predict/"] = {"post": _predict(deadline_s)}
    return {
        "swagger": "2.0",
        "info": {"title": "buoy", "version": __version__, "description": "The DEEPaaS V2 API of these models."},
        "basePath": base_path or "/",
        "securityDefinitions": {
            "basic": {"type": "basic"},
            "bearer": {"type": "apiKey", "in": "header", "name": "Authorization"},
        },
        "security": [{"basic": []}, {"bearer": []}],
        "paths": paths,
    }


def _operation(endpoint: object, *parameters: dict[str, Any], produces: Iterable[str] = _SHOWN[:1]) -> dict[str, Any]:
    return {
        "tags": ["models"],
        "summary": (endpoint.__doc__ or "").partition("\n")[0],
        "parameters": list(parameters),
        "produces": list(produces),
        "responses": {"200": {"description": "Done.", "schema": {"type": "object"}}, "default": _REFUSED},
    }


def _predict(deadline_s: float) -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {
        "deadline_ms": {"default": round(deadline_s * 1000)},
        "accept": {"default": _SHOWN[0], "enum": list(_SHOWN)},
    }
    asked = [_parameter(name) | more.get(name, {}) for name in sorted(deepaas.PARAMETERS, key="accept".__eq__)]
    return _operation(deepaas.predict, _FILE, *asked, produces=_SHOWN) | {"consumes": ["multipart/form-data"]}


def _parameter(name: str) -> dict[str, Any]:
    schema, about = PARAMETERS[name]
    return {"name": name, "in": "query", "required": False, "description": about, **schema}
