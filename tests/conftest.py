"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.minio import MinioServer, minio

#: What is measured about the tiny networks of the tests does not belong into the user's cache.
_CACHE = tempfile.TemporaryDirectory(prefix="buoy-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("buoy", deadline=None)
settings.load_profile("buoy")


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """One MinIO for all tests that do not stop it; each makes buckets of its own."""
    with minio(tmp_path_factory.mktemp("minio")) as server:
        yield server
