"""How far a stream has come: what its next opening is told, in another process of the model or of the service."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from buoy.streams.progress import files_of
from buoy.streams.spec import StreamSpec

__all__ = ["Bookmark", "Saved", "digest"]


class Saved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bookmark on disk."""

    #: `digest` of the stream as it was.
    spec: str
    past: dict[str, Any] = {}
    files: bytes = b""
    ended: bool = False


class Bookmark:
    """What is known of a stream's progress (`buoy.streams.progress`); nothing of cameras.

    It moves in the same step in which a frame is counted and given to the sinks, so each counts once, and is saved
    together with the counts. Of a folder it remembers every file that is still there, some 200 bytes for each.
    """

    def __init__(self, saved: Saved | None = None) -> None:
        #: It has ended of itself, as a video does, and is not to begin again.
        self.ended = bool(saved and saved.ended)
        self._past = dict(saved.past) if saved else {}
        self._files = dict(files_of(saved.files)) if saved else {}

    def reach(self, head: dict[str, Any]) -> None:
        """What a message says of it."""
        self._past = head.get("past", self._past)
        self._files.update(files_of(bytes.fromhex(head.get("passed", ""))))
        for key, version in files_of(bytes.fromhex(head.get("gone", ""))):
            if self._files.get(key) == version:  # else another has come under that name
                del self._files[key]

    def end(self) -> bool:
        """The stream has ended of itself; whether that is to be remembered, as it is of a video."""
        self.ended = "spot" in self._past
        return self.ended

    def opening(self) -> tuple[dict[str, Any], bytes]:
        """What is added to the head of `open`, and its body."""
        return ({"past": self._past} if self._past else {}), self._joined()

    def save(self, spec: StreamSpec) -> Saved | None:
        """As it is kept; `None` where there is nothing to keep."""
        if not self._past and not self._files:
            return None
        return Saved(spec=digest(spec), past=self._past, files=self._joined(), ended=self.ended)

    def _joined(self) -> bytes:
        return b"".join(key + version for key, version in self._files.items())


def digest(spec: StreamSpec) -> str:
    """Tells whether a stream is configured as it was. Nobody can read passwords in it; a new key changes nothing."""
    return hashlib.sha256(msgspec.json.encode(_said(spec), order="deterministic")).hexdigest()


def _said(value: Any) -> Any:
    """Only what differs from the defaults, which another version of ours may have more of."""
    if isinstance(value, list | tuple):
        return [_said(each) for each in value]
    if not isinstance(value, msgspec.Struct):
        return value
    found = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
    return {field.name: _said(have) for field, have in found if have != _default(field)}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default
