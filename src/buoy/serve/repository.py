"""Triton's model repository extension: what is loaded, and loading a model's folder again while it serves.

`load` starts a process with what is in the folder now; when that is ready it takes over, and the old one leaves
after its last answer. Source: Triton's `extension_model_repository.md`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from buoy.serve import query
from buoy.serve.service import Service

__all__ = ["index", "load"]


async def index(service: Service, request: Request) -> Response:
    """The models, their versions and states."""
    query.checked(request, ())
    return JSONResponse(
        [
            {
                "name": looker.name,
                "version": looker.about.get("model", {}).get("version", ""),
                "state": "READY" if looker.ready else "UNAVAILABLE",
                "reason": looker.refusal.message if looker.refusal else "",
            }
            for looker in service.lookers
        ]
    )


async def load(service: Service, request: Request) -> Response:
    """Load the model's folder again; the old version answers until the new one is ready."""
    query.checked(request, ())
    about = await service.looker(request).replace()
    return JSONResponse({"name": about["model"]["name"], "version": about["model"]["version"]})
