"""Where a bucket sink writes: a folder, or a bucket of an S3 store."""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from buoy.errors import ExistsError, UsageError
from buoy.serve.live.sinks.spool import sync_folder
from buoy.store import Store, open_store
from buoy.store.local import PIECE_BYTES, told

__all__ = ["Destination", "open_destination"]


class Destination(Protocol):
    """Takes files whose names no other file ever has."""

    def put(self, key: str, content: BinaryIO) -> None:
        """Write the content under this key, whole or not at all; the same a second time changes nothing.

        Raises:
            StoreError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, content: BinaryIO) -> None:
        target = self._folder / key
        with told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Always the same name, so that what a kill leaves is written over by the next try.
            new = target.with_name(f".{target.name}.part")
            with new.open("wb") as copy:
                shutil.copyfileobj(content, copy, PIECE_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(new, target)
            sync_folder(target.parent)

    def close(self) -> None:
        pass


class _Bucket:
    def __init__(self, store: Store, bucket: str, prefix: str) -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = prefix

    def put(self, key: str, content: BinaryIO) -> None:
        # Only the same part can be there, when the answer to an earlier try never reached us.
        with suppress(ExistsError):
            self._store.put(self._bucket, self._prefix + key, content, create_only=True)

    def close(self) -> None:
        self._store.close()


def open_destination(to: str) -> Destination:
    """A folder, or `s3://bucket/prefix` at the endpoint that the environment names.

    Raises:
        UsageError: it is neither, or something that it needs is missing.
    """
    if not to.startswith("s3://"):
        if "://" in to:
            raise UsageError(f"{to} is no place for files", "give a folder, or s3://bucket/prefix")
        return _Folder(Path(to).absolute())
    bucket, _, prefix = to.removeprefix("s3://").partition("/")
    known = os.environ
    endpoint = known.get("BUOY_S3_ENDPOINT", "")
    if not bucket or not endpoint:
        raise UsageError(
            f"{to} names no bucket" if not bucket else f"{to}: at which store?",
            "write it as s3://bucket/prefix" if not bucket else "set BUOY_S3_ENDPOINT to its address",
        )
    if importlib.util.find_spec("boto3") is None:
        raise UsageError(f"boto3, which {to} needs, is not installed", "pip install 'buoy[s3]'")
    store = open_store(
        endpoint,
        access_key=known.get("BUOY_S3_ACCESS_KEY") or known.get("AWS_ACCESS_KEY_ID", ""),
        secret_key=known.get("BUOY_S3_SECRET_KEY") or known.get("AWS_SECRET_ACCESS_KEY", ""),
    )
    prefix = prefix.strip("/")
    return _Bucket(store, bucket, f"{prefix}/" if prefix else "")
