"""What tests of stores share: a bucket in their store, which is on the MinIO of all tests unless they say otherwise."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from buoy.store import Store
from buoy.store.s3 import S3Store
from support.minio import MinioServer, opened


@pytest.fixture
def store(minio_server: MinioServer) -> Iterator[S3Store]:
    with opened(minio_server) as store:
        yield store


@pytest.fixture
def bucket(store: Store) -> Iterator[str]:
    name = f"test-{secrets.token_hex(6)}"
    store.create_bucket(name)
    yield name
    if name in store.buckets():
        store.delete_bucket(name)
