"""What tests of S3 stores share: a store on the MinIO of all tests, and a bucket in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from buoy.store.s3 import S3Store
from support.minio import MinioServer, opened


@pytest.fixture
def store(minio_server: MinioServer) -> Iterator[S3Store]:
    with opened(minio_server) as store:
        yield store


@pytest.fixture
def bucket(store: S3Store) -> Iterator[str]:
    name = f"test-{secrets.token_hex(6)}"
    store.create_bucket(name)
    yield name
    if name in store.buckets():
        store.delete_bucket(name)
