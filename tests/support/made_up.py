"""What schemathesis sends as pictures: good ones, cut ones, and noise. Named in `SCHEMATHESIS_HOOKS`."""

from __future__ import annotations

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
