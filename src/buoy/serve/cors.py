"""Which pages of other origins may ask from a browser: none, unless the operator names them."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

__all__ = ["for_origins"]


_HEAD_LENGTH = "Inference-Header-Content-Length"


def for_origins(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The application as those pages see it; without cookies, so that they have to bring a token of their own."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("Authorization", "Content-Type", "X-Request-ID", "X-Deadline-Ms", _HEAD_LENGTH, "traceparent"),
        expose_headers=("Retry-After", "X-Request-ID", _HEAD_LENGTH),
    )
