"""What schemathesis sends: pictures that are good, cut or noise, and streams that open nothing.

Named in `SCHEMATHESIS_HOOKS`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import schemathesis
from hypothesis import strategies as st

from support.tiny import picture_with_squares, png

_PIXELS = picture_with_squares((0, 0), (2, 3))
_PNG = png(_PIXELS)
_FILES = {kind: cv2.imencode(f".{kind}", _PIXELS)[1].tobytes() for kind in ("jpeg", "tiff", "webp")} | {"png": _PNG}


def _pictures(good: bytes) -> st.SearchStrategy[bytes]:
    return st.just(good) | st.integers(0, len(good)).map(lambda at: good[:at]) | st.binary(max_size=200)


for _kind, _good in _FILES.items():
    schemathesis.openapi.media_type(f"image/{_kind}", _pictures(_good))
schemathesis.openapi.media_type("application/octet-stream", st.sampled_from([*_FILES.values(), b"", b"GIF89a"]))

#: As `buoy.streams.spec` has them.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_SOURCE_LENGTHS = range(1, 2049)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """What a stream would open or write to is replaced by what does no harm; what is wrong stays as it is."""
    if case.operation.path == "/streams" and isinstance(case.body, dict):
        case.body = _harmless(case.body)


def _harmless(spec: dict[str, Any]) -> dict[str, Any]:
    spec = dict(spec)
    if isinstance(source := spec.get("source"), str) and len(source) in _SOURCE_LENGTHS:
        spec["source"] = "push:"
    if isinstance(name := spec.get("name"), str) and len(name) == 1 and _NAME.fullmatch(name):
        spec["name"] = "made"  # which is what is deleted
    if isinstance(sinks := spec.get("sinks"), list):
        spec["sinks"] = [_nowhere(sink) for sink in sinks]
    return spec


def _nowhere(sink: Any) -> Any:
    valid = isinstance(sink, dict) and isinstance(sink.get("to"), str) and sink["to"]
    return {**sink, "to": str(Path.cwd() / "sinks")} if valid else sink
