"""The part of a store that a run reads or writes: keys are relative to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from buoy.errors import MissingError, UsageError
from buoy.store import Body, Object, Store, open_store

__all__ = ["Area", "Home", "open_area"]


@dataclass(frozen=True)
class Area:
    """A bucket of a store, or what is below a prefix in it."""

    store: Store
    bucket: str
    prefix: str = ""

    def put(self, key: str, body: Body, *, create_only: bool = False) -> Object:
        """Write an object."""
        return self.store.put(self.bucket, self.prefix + key, body, create_only=create_only)

    def get(self, key: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: str = "") -> bytes:
        """Read an object, or a version of it, if it still has the `etag`."""
        return self.store.get(self.bucket, self.prefix + key, start=start, stop=stop, etag=etag, version=version)

    def fetch(self, key: str, path: Path, *, etag: str = "", version: str = "") -> Object:
        """Copy an object into a file."""
        return self.store.fetch(self.bucket, self.prefix + key, path, etag=etag, version=version)

    def stat(self, key: str, *, version: str = "") -> Object:
        """Describe an object."""
        return self.store.stat(self.bucket, self.prefix + key, version=version)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.store.delete(self.bucket, self.prefix + key)

    def walk(self, prefix: str = "", after: str = "") -> Iterator[Object]:
        """The objects below `prefix` that come after the key `after`, with their relative keys."""
        after = self.prefix + after if after else ""
        while True:
            page = self.store.list(self.bucket, self.prefix + prefix, after=after)
            for found in page.objects:
                yield found._replace(key=found.key[len(self.prefix) :])
            if not (after := page.next):
                return


def open_area(where: str) -> Area:
    """Open `s3://bucket/prefix` or a folder for reading.

    Raises:
        UsageError: it is neither.
    """
    if where.startswith("s3://"):
        store, bucket, prefix = _s3(where)
        return Area(store, bucket, prefix)
    from buoy.store.one_folder import OneFolder

    if not Path(where).is_dir():
        raise UsageError(f"{where}: no such folder", "give a folder, or s3://bucket/prefix")
    folder = OneFolder(Path(where))
    return Area(folder, folder.bucket)


class Home:
    """Where runs live and results go: `s3://bucket/prefix/` or a folder."""

    def __init__(self, where: str) -> None:
        self.where = where.rstrip("/") if where.startswith("s3://") else str(Path(where).absolute())
        self._s3 = _s3(self.where + "/") if where.startswith("s3://") else None

    def run(self, run: str, *, make: bool = False) -> Area:
        """The ledger of a run."""
        return self._area(".runs", run, make)

    def results(self, name: str) -> Area:
        """A set of results."""
        return self._area("", name, True)

    def runs(self) -> list[str]:
        """The names of the runs that have begun here."""
        if self._s3 is None:
            try:
                return self._folder(".runs").buckets()
            except MissingError:
                return []
        store, bucket, prefix = self._s3
        found, after = [], ""
        base = f"{prefix}.runs/"
        while page := store.list(bucket, base, after=after, limit=1).objects:
            run = page[0].key[len(base) :].partition("/")[0]
            found.append(run)
            after = f"{base}{run}/\U0010ffff"
        return found

    def inside(self, source: str) -> str | None:
        """Where in the source this lies: the beginning of our whole keys; `None` if it lies elsewhere."""
        if self._s3 is not None:
            bucket, _, prefix = source.removeprefix("s3://").partition("/")
            _, ours, below = self._s3
            return below if source.startswith("s3://") and bucket == ours and below.startswith(prefix) else None
        if source.startswith("s3://"):
            return None
        base, here = Path(source).resolve(), Path(self.where).resolve()
        if here == base:
            return ""
        return f"{here.relative_to(base)}/" if base in here.parents else None

    def _area(self, folder: str, name: str, make: bool) -> Area:
        if self._s3 is not None:
            store, bucket, prefix = self._s3
            return Area(store, bucket, f"{prefix}{folder}{'/' if folder else ''}{name}/")
        if make:
            self._folder(folder).create_bucket(name)
        return Area(self._folder(folder), name)

    def _folder(self, name: str) -> Store:
        from buoy.store.folder import FolderStore

        return FolderStore(Path(self.where) / name)


def _s3(where: str) -> tuple[Store, str, str]:
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"{where}: no bucket in it", "write s3://bucket/prefix")
    endpoint = os.environ.get("BUOY_S3_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com"
    store = open_store(
        endpoint,
        access_key=os.environ.get("BUOY_S3_ACCESS_KEY", ""),
        secret_key=os.environ.get("BUOY_S3_SECRET_KEY", ""),
        region=os.environ.get("AWS_REGION") or "us-east-1",
    )
    return store, bucket, prefix
