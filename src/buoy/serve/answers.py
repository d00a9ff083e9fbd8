"""Responses: an error in its one form, and small JSON documents."""

from __future__ import annotations

import math
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from buoy.errors import BuoyError
from buoy.serve.refusals import Denied, Refusal, Unknown, WrongMethod, status_of

__all__ = ["of_error", "of_http"]


def of_error(error: BuoyError, *, as_text: bool = False) -> Response:
    """The error as a response.

    Args:
        error: what went wrong.
        as_text: the Open Inference Protocol wants `{"error": "text"}`; elsewhere it is our record.
    """
    headers = {}
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if isinstance(error, Denied):
        headers["WWW-Authenticate"] = 'Basic realm="buoy", charset="UTF-8"'
    return JSONResponse({"error": str(error) if as_text else error.record()}, status_of(error), headers)


def of_http(error: HTTPException, method: str, path: str, methods: Collection[str]) -> tuple[Refusal, dict[str, str]]:
    """What the router says, as an error of ours, and the headers that go with it.

    Args:
        error: of the router.
        method: that was asked for.
        path: the same.
        methods: that there are at this path.
    """
    if error.status_code == 405:
        allowed = ", ".join(methods)
        return WrongMethod(f"{path} does not take {method}", f"it takes {allowed}"), {"Allow": allowed}
    return Unknown(f"there is nothing at {path}", "see /openapi.json"), {}
