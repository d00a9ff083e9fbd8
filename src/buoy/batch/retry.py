"""The manifest of a retry: the objects of a run that have no result and should have one, as they are now.

They are the failed rows of the run below in their order, which is what `overlay` relies on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from buoy.batch.area import Area
from buoy.batch.bases import FAILED, Below
from buoy.batch.manifest import Listed, Lister, ManifestRows, Row
from buoy.batch.overlay import failed_rows
from buoy.batch.tables import read_table
from buoy.errors import MissingError, StoreError

__all__ = ["RetryLister"]

_LOOKERS, _AT_ONCE = 16, 256


class RetryLister(Lister):
    """See the module.

    Args:
        below: the run.
        source: what its keys are relative to.
    """

    def __init__(self, below: Below, source: Area) -> None:
        self._below, self._source = below, source

    def objects(self, after: str, skip: int) -> Iterator[Listed]:
        """The objects after so many of them, each with the etag that it has now."""
        self._source.store.list(self._source.bucket, limit=1)  # says if nothing can be read any more
        rows = islice(self._rows(), skip, None)
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="look") as pool:
            while some := list(islice(rows, _AT_ONCE)):
                yield from pool.map(self._look, some)

    def _rows(self) -> Iterator[Row]:
        manifest = ManifestRows(self._below.ledger)
        for leaf in self._below.seal().leaves:
            if any(leaf.attempt.counts.get(status) for status in FAILED):
                for row in failed_rows(read_table(self._below.ledger.load(leaf.attempt.key))):
                    yield from manifest.read(row, row + 1)

    def _look(self, row: Row) -> Listed:
        try:
            found = self._below.ledger.patiently(lambda: self._source.stat(row.key, version=row.version))
        except MissingError:
            return Listed(row.key, row.size_bytes, row.etag, row.modified_s, "deleted", row.version)
        except StoreError as error:
            if error.retry:
                raise
            return Listed(row.key, row.size_bytes, row.etag, row.modified_s, "", row.version)  # the row will tell
        fate = "" if found.size_bytes else "empty"
        return Listed(row.key, found.size_bytes, found.etag, found.modified_s, fate, row.version)
