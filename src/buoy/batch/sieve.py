"""What becomes of an object, by the filters that a person has given."""

from __future__ import annotations

from fnmatch import translate
from re import compile, escape

from buoy.batch.manifest import Listed
from buoy.batch.spec import Filters

__all__ = ["Sieve"]

#: Runs, and their result sets.
_OURS = r"(\.runs|[a-z0-9-]+-[0-9a-f]{10}\.[0-9a-f]{8})/"


class Sieve:
    """Says what becomes of an object, by the filters.

    Args:
        filters: what the person wants.
        prefix: of the source, which globs do not see.
        ours: where runs and result sets lie in the source, which never are input; `None` if elsewhere.
    """

    def __init__(self, filters: Filters, prefix: str = "", ours: str | None = None) -> None:
        self._filters, self._prefix = filters, prefix
        self._ours = compile(escape(ours) + _OURS) if ours is not None else None
        self._where = compile(translate(filters.where)) if filters.where else None

    def sift(self, key: str, size_bytes: int | None, etag: str, modified_s: float, version: str = "") -> Listed:
        """The object with its fate; a size that is not known is `None`."""
        return Listed(key, size_bytes or 0, etag, modified_s, self._fate(key, size_bytes, modified_s), version)

    def _fate(self, key: str, size_bytes: int | None, modified_s: float) -> str:
        filters = self._filters
        if self._ours is not None and self._ours.match(key):
            return "outside"
        if self._where and not self._where.match(key.removeprefix(self._prefix)):
            return "outside"
        if filters.since_s is not None and modified_s < filters.since_s:
            return "outside"
        if filters.until_s is not None and modified_s >= filters.until_s:
            return "outside"
        if size_bytes is not None and not filters.least_bytes <= size_bytes <= (filters.most_bytes or size_bytes):
            return "outside"
        if filters.suffixes and not key.lower().endswith(filters.suffixes):
            return "skipped"
        return "empty" if size_bytes == 0 else ""
