"""What the address of a source says, and how it is shown without its secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from buoy.errors import UsageError

__all__ = ["Kind", "kind_of", "mask"]

Kind = Literal["rtsp", "http", "push", "file", "folder"]

_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http", "push": "push"}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_USER = re.compile(r"(?<=://)([^/?#\s@:]*):[^/?#\s]*@")
#: Cameras take passwords in the query as well.
_QUERY = re.compile(r"([?&;][^=&\s]*(?:pass|pwd|secret|token|key|auth|sig)[^=&\s]*=)[^&#\s]*", re.IGNORECASE)


def kind_of(source: str) -> Kind:
    """The kind of a source, by its address alone; a path that is not there counts as a file unless it ends in `/`.

    Raises:
        UsageError: an unknown scheme, or an address without a host.
    """
    found = _SCHEME.match(source)
    if not found:
        return "folder" if source.endswith("/") or Path(source).is_dir() else "file"
    kind = _SCHEMES.get(found[1].lower())
    if kind is None:
        raise UsageError(
            f"{mask(source)}: no stream can be read from {found[1]}:",
            "give rtsp://, rtsps://, http(s)://, the path of a video or folder, or push:",
        )
    if kind != "push" and not urlsplit(source).hostname:
        raise UsageError(f"{mask(source)}: there is no host in it", f"write {found[1]}://host/path")
    return kind


def mask(text: str) -> str:
    """An address, or a text with addresses in it, without passwords."""
    return _QUERY.sub(r"\1***", _USER.sub(r"\1:***@", text))
