"""Where objects live: a small interface with two implementations, folder and S3.

A bucket holds objects; a key is any string that S3 allows (UTF-8, 1-1,024 bytes) without NUL and
without a `.` or `..` segment, which HTTP software would resolve on the way. The folder store refuses
the few more that its files cannot have (`names.py`): an empty segment, one over 255 bytes, one that
starts with a dot, an unfinished name such as `x.part`. Putting or deleting such a key is a
`StoreError`, reading it a `MissingError`. Bytes and keys come back exactly as they were put.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

__all__ = ["Body", "Object", "Page", "Store", "open_store"]

#: What can be put: bytes, or something streamed in bounded memory.
Body = bytes | Path | BinaryIO


class Object(NamedTuple):
    """One object as a listing shows it."""

    bucket: str
    key: str
    size_bytes: int
    #: Opaque; another content has another etag. Never a promise of MD5.
    etag: str
    #: Seconds since 1970, UTC.
    modified_s: float


class Page(NamedTuple):
    """A part of a listing, in byte order of the UTF-8 keys."""

    objects: list[Object]
    #: Give it back as `after` for the next page; empty at the end.
    next: str


class Store(Protocol):
    """The operations that the rest of buoy needs of a store.

    Every method raises `MissingError` for an absent bucket or object and `StoreError` for the
    rest, with `retry=True` where trying again can help.
    """

    def buckets(self) -> list[str]:
        """Names of all buckets, sorted."""
        ...

    def create_bucket(self, bucket: str) -> bool:
        """Make the bucket; `False` if it was there already."""
        ...

    def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket and everything in it."""
        ...

    def put(self, bucket: str, key: str, body: Body, *, create_only: bool = False) -> Object:
        """Write the object whole or not at all; nobody ever reads half of it.

        Raises:
            ExistsError: `create_only` and the key exists: of any number of racing writers one wins.
        """
        ...

    def stat(self, bucket: str, key: str, *, version: str = "") -> Object:
        """Size, etag and time of one object, or of an older version of it."""
        ...

    def get(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: str = ""
    ) -> bytes:
        """The bytes `start:stop` of the object (all of it by default), or of an older version of it.

        Raises:
            ChangedError: `etag` is given, and the object has another by now.
            MissingError: a `version` is given that is not there; in a folder none is.
        """
        ...

    def stream(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> Iterator[bytes]:
        """The same, in pieces of bounded size."""
        ...

    def fetch(self, bucket: str, key: str, path: Path, *, etag: str = "", version: str = "") -> Object:
        """Write the object (or a version of it) into a local file in bounded memory; it appears only when complete.

        Raises:
            ChangedError: `etag` is given, and the object has another by now.
        """
        ...

    def list(self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, markers: bool = False) -> Page:
        """Up to `limit` (and 1,000) objects whose keys start with `prefix` and come after `after`.

        Folder markers, that is empty objects whose keys end in a slash, are shown only on request; a folder's own
        folders are no objects.
        """
        ...

    def walk(self, bucket: str, prefix: str = "") -> Iterator[Object]:
        """All objects under the prefix, page by page."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; no error if it is not there (as S3)."""
        ...

    def close(self) -> None:
        """Give back connections; the store can be used again all the same."""
        ...


def open_store(where: str, *, access_key: str = "", secret_key: str = "", region: str = "us-east-1") -> Store:
    """Open a folder (a path) or an S3 endpoint (an http or https URL)."""
    if where.startswith(("http://", "https://")):
        from buoy.store.s3 import S3Store

        return S3Store(where, access_key=access_key, secret_key=secret_key, region=region)
    from buoy.store.folder import FolderStore

    return FolderStore(Path(where))
