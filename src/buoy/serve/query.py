"""Reads and checks what is asked: the query, the Accept header, the deadline."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from starlette.requests import Request

from buoy.errors import UsageError
from buoy.serve.refusals import NotAcceptable

__all__ = ["FORMS", "checked", "choice", "deadline_s", "fraction", "name", "negotiate"]

#: Media type to form of the answer, the preferred first.
FORMS = {"application/json": "json", "text/csv": "csv", "image/jpeg": "jpeg", "image/png": "png"}

_NAME_LENGTH = 512


def checked(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's parameters.

    Raises:
        UsageError: one is not known, or given twice.
    """
    found: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key not in known:
            raise UsageError(f"the parameter {key[:40]!r} is not known", f"known: {', '.join(sorted(known))}")
        if key in found:
            raise UsageError(f"the parameter {key} is given twice", "give it once")
        found[key] = value
    return found


def fraction(parameter: str, text: object) -> float:
    """A threshold.

    Raises:
        UsageError: not a number from 0 to 1.
    """
    try:
        value = float(text) if isinstance(text, str | int | float) and not isinstance(text, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"the parameter {parameter} is {str(text)[:40]!r}", "give a number from 0 to 1")
    return value


def choice(parameter: str, text: str, known: Collection[str]) -> str:
    """One of a few words.

    Raises:
        UsageError: another one.
    """
    if text not in known:
        raise UsageError(f"the parameter {parameter} is {text[:40]!r}", f"give one of: {', '.join(known)}")
    return text


def name(text: str) -> str:
    """What to call the picture in the result.

    Raises:
        UsageError: too long, or not printable.
    """
    if len(text) > _NAME_LENGTH or not text.isprintable():
        raise UsageError("the parameter name cannot be used", f"give at most {_NAME_LENGTH} printable characters")
    return text


def deadline_s(request: Request, query: Mapping[str, str], default_s: float) -> float:
    """How long the picture may wait for its turn: `deadline_ms`, `X-Deadline-Ms`, or the service's own.

    Raises:
        UsageError: not a whole number of milliseconds, 1 to 3,600,000.
    """
    text = query.get("deadline_ms", request.headers.get("x-deadline-ms"))
    if text is None:
        return default_s
    if not (text.isascii() and text.isdecimal() and len(text) <= 7 and 1 <= int(text) <= 3_600_000):
        raise UsageError(
            f"the deadline (deadline_ms, X-Deadline-Ms) is {text[:40]!r}", "give milliseconds, 1 to 3600000"
        )
    return int(text) / 1000


def negotiate(accept: str, forms: Mapping[str, str] = FORMS) -> str:
    """The form of the answer that the caller likes best; among equals, the first that we list.

    Raises:
        NotAcceptable: none of ours.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best, best_quality = "", 0.0
    for media_type, form in forms.items():
        # the most specific range that fits decides (RFC 9110, 12.5.1)
        fitting = [(len(kind.rstrip("*/")), quality) for kind, quality in ranges if _fits(kind, media_type)]
        quality = max(fitting)[1] if fitting else 0.0
        if quality > best_quality:
            best, best_quality = form, quality
    if not best:
        raise NotAcceptable(f"nothing here is of type {accept[:80]}", f"accept one of: {', '.join(forms)}")
    return best


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = [piece.strip().lower() for piece in part.split(";")]
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        value = float(quality)
    except ValueError:
        return kind, 0.0
    return kind, value if 0 <= value <= 1 else 0.0


def _fits(kind: str, media_type: str) -> bool:
    return kind in ("*/*", media_type, f"{media_type.partition('/')[0]}/*")
