"""Takes passwords out of what is answered, logged or shown."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from buoy.streams.spec import Sink, StreamSpec

__all__ = ["MASK", "masked", "without"]

MASK = "***"

_USER = re.compile(r"^([a-z][a-z0-9+.-]*://[^/?#@:]*):[^/?#@]*@", re.IGNORECASE)
_SECRET_KEY = re.compile(r"(pass|pwd|token|secret|key|auth|sig|credential)", re.IGNORECASE)
_PAIR = re.compile(r"([?&])([^=&#]+)=([^&#]+)")


def masked(spec: StreamSpec) -> dict[str, Any]:
    """The spec as JSON-ready data, without its passwords."""
    shown: dict[str, Any] = msgspec.to_builtins(spec)
    shown["source"] = _url(spec.source)
    shown["sinks"] = [{**msgspec.to_builtins(sink), "to": _address(sink)} for sink in spec.sinks]
    return shown


def without(spec: StreamSpec, text: str) -> str:
    """What a library says of a stream, which may quote its address, without its passwords."""
    for secret in _secrets(spec.source):
        text = text.replace(secret, MASK)
    return text


def _url(text: str) -> str:
    text = _USER.sub(rf"\1:{MASK}@", text)
    return _PAIR.sub(lambda m: f"{m[1]}{m[2]}={MASK if _SECRET_KEY.search(m[2]) else m[3]}", text)


def _address(sink: Sink) -> str:
    """A webhook's path is often its secret."""
    if sink.kind != "webhook":
        return _url(sink.to)
    at = urlsplit(_url(sink.to))
    return f"{at.scheme}://{at.netloc}" + (f"/{MASK}" if len(at.path) > 1 or at.query else at.path)


def _secrets(source: str) -> list[str]:
    try:
        at = urlsplit(source)
        pairs = parse_qsl(at.query)
        found = [at.password or "", *(value for key, value in pairs if _SECRET_KEY.search(key))]
    except ValueError:
        return []
    return sorted((each for each in found if len(each) > 2), key=len, reverse=True)
