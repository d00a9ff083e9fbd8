"""Where a manifest comes from: a listing of the source, a list that somebody has, what an earlier run has left."""

from __future__ import annotations

from collections.abc import Iterator

from buoy.batch.area import Area, Home, open_area
from buoy.batch.bases import chain_of, open_base
from buoy.batch.ledger import Ledger
from buoy.batch.list_source import ListLister
from buoy.batch.manifest import Listed, Lister
from buoy.batch.ranges import RANGES, cut, is_far, walk_ranges
from buoy.batch.retry import RetryLister
from buoy.batch.sieve import Sieve
from buoy.batch.since import NewSince
from buoy.batch.spec import Spec
from buoy.store import Object

__all__ = ["AreaLister", "lister_of"]

#: So many are listed one after the other before ranges are thought of: cutting them takes no longer than that did.
_FIRST = 30_000


def lister_of(spec: Spec, home: Home, ledger: Ledger) -> Lister:
    """What the manifest of a run is made from.

    Raises:
        UsageError: the source is not there.
    """
    area, base = open_area(spec.source), spec.base
    if base is not None and base.kind == "retry":
        return RetryLister(open_base(base), Area(area.store, area.bucket))
    sieve = Sieve(spec.filters, area.prefix, home.inside(spec.source))
    lister: Lister = AreaLister(area, sieve, ledger)
    if spec.listed is not None:
        lister = ListLister(spec.listed, spec.source, area, sieve, spec.filters)
    return NewSince(lister, [each.ledger for each in chain_of(base)]) if base is not None else lister


class AreaLister(Lister):
    """Lists a bucket or a folder, in the order of its keys. Every object gets a row, folder markers too.

    Args:
        area: the source.
        sieve: the filters.
        ledger: of the run, where a listing in ranges keeps what it has.
    """

    def __init__(self, area: Area, sieve: Sieve, ledger: Ledger) -> None:
        self._area, self._sieve, self._ledger = area, sieve, ledger

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects after the key `after`."""
        sift = self._sieve.sift
        for each in self._walk_all(after):
            yield sift(each.key, each.size_bytes, each.etag, each.modified_s)

    def _walk_all(self, after: str) -> Iterator[Object]:
        record = self._ledger.read(RANGES)
        if record is None:
            last = ""
            for number, each in enumerate(self._walk(after), 1):
                yield each
                last = each.key
                if number == _FIRST and is_far(self._first):
                    break
            else:
                return
            record = self._ledger.create(RANGES, {"bounds": cut(self._first, last)}).record
            after = last
        bounds = record["bounds"]
        for each in self._walk(after) if after < bounds[0] else ():
            if each.key > bounds[0]:
                break
            yield each
        for each in walk_ranges(self._ledger, self._walk, bounds, self._area.bucket):
            if each.key > after:
                yield each

    def _walk(self, after: str) -> Iterator[Object]:
        store, bucket, prefix = self._area.store, self._area.bucket, self._area.prefix
        while True:
            page = self._ledger.patiently(lambda: store.list(bucket, prefix, after=after, markers=True))
            yield from page.objects
            if not (after := page.next):
                return

    def _first(self, prefix: str, after: str) -> str | None:
        area = self._area
        if not prefix.startswith(area.prefix):
            prefix = area.prefix
        page = self._ledger.patiently(lambda: area.store.list(area.bucket, prefix, after=after, limit=1, markers=True))
        return page.objects[0].key if page.objects else None
