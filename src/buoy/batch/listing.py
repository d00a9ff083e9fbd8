"""Where a manifest comes from: a listing of the source, a list that somebody has, an inventory of S3."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import translate
from itertools import islice
from re import compile, escape

from buoy.batch.area import Area, Home, open_area
from buoy.batch.manifest import Listed, Lister
from buoy.batch.spec import Filters, Spec
from buoy.store import Object

#: Runs, and their result sets.
_OURS = r"(\.runs|[a-z0-9-]+-[0-9a-f]{10}\.[0-9a-f]{8})/"

__all__ = ["AreaLister", "Sieve", "lister_of"]


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

    def sift(self, key: str, size_bytes: int | None, etag: str, modified_s: float) -> Listed:
        """The object with its fate; a size that is not known is `None`."""
        return Listed(key, size_bytes or 0, etag, modified_s, self._fate(key, size_bytes, modified_s))

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


def lister_of(spec: Spec, home: Home) -> Lister:
    """What the manifest of a run is made from.

    Raises:
        UsageError: the source, or the list, is not there.
    """
    area = open_area(spec.source)
    sieve = Sieve(spec.filters, area.prefix, home.inside(spec.source))
    return AreaLister(area, sieve)


class AreaLister(Lister):
    """Lists a bucket or a folder, in the order of its keys."""

    def __init__(self, area: Area, sieve: Sieve) -> None:
        self._area, self._sieve = area, sieve

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects after the key `after`."""
        for each in self._area.walk(after=after[len(self._area.prefix) :] if after else ""):
            yield self.take(each)

    def take(self, found: Object) -> Listed:
        """One object, by its whole key."""
        return self._sieve.sift(self._area.prefix + found.key, found.size_bytes, found.etag, found.modified_s)

    def first(self, number: int) -> list[Listed]:
        """Some objects, for a look ahead."""
        return list(islice(self.objects("", 0), number))
