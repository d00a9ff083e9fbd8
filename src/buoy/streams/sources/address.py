"""What the address of a source says, and how it is shown without its secrets."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from buoy.errors import SourceError, UsageError

__all__ = ["Kind", "Peer", "answers", "credentials", "kind_of", "mask", "resolve"]

Kind = Literal["rtsp", "http", "push", "file", "folder"]

_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http", "push": "push"}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_USER = re.compile(r"(?<=://)([^/?#\s@:]*):[^/?#\s]*@")
#: Cameras take passwords in the query as well.
_QUERY = re.compile(r"([?&;][^=&\s]*(?:pass|pwd|secret|token|key|auth|sig)[^=&\s]*=)[^&#\s]*", re.IGNORECASE)


def kind_of(source: str) -> Kind:
    """The kind of a source, by its address alone; a path where nothing is counts as a file if it has a suffix.

    Raises:
        UsageError: an unknown scheme, or an address without a host.
    """
    found = _SCHEME.match(source)
    if not found:
        path = Path(source)
        return "folder" if path.is_dir() or not (path.suffix or path.exists()) else "file"
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


#: A resolved address of a server: family, and what `socket.connect` takes.
Peer = tuple[int, tuple[str, int] | tuple[str, int, int, int]]

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


def credentials(source: str) -> tuple[str, tuple[str, str] | None]:
    """The address without user and password, and these, decoded; `None` if there are none."""
    parts = urlsplit(source)
    if parts.username is None:
        return source, None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, (unquote(parts.username), unquote(parts.password or ""))


def resolve(source: str) -> Peer:
    """Ask for the address behind the host's name; this may take as long as the system's resolver likes.

    Raises:
        SourceError: there is none, or nobody answers.
    """
    parts = urlsplit(source)
    try:
        port = parts.port or _PORTS[parts.scheme.lower()]
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SourceError(
            f"the name {parts.hostname} cannot be resolved", "check the name, and this machine's name servers"
        ) from error
    return int(found[0][0]), cast("tuple[str, int]", found[0][4])


def answers(peer: Peer, timeout_s: float) -> bool:
    """Whether something accepts connections there. Says nothing, and asks for nothing."""
    with socket.socket(peer[0], socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        return probe.connect_ex(peer[1]) == 0
