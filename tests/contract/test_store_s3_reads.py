"""Reads that do not go through boto3: what they answer themselves, and what they leave to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from buoy.errors import ChangedError, MissingError
from buoy.store.s3 import S3Store
from buoy.store.s3_reads import QuickReads
from support.minio import MinioServer, minio


def reads_of(server: MinioServer, secret_key: str = "") -> QuickReads:
    return QuickReads(server.endpoint, server.access_key, secret_key or server.secret_key, "us-east-1")


@pytest.mark.parametrize("key", ["a.jpg", "2011/cam-1/2011_01=1.jpg", ".runs/x/fin/000-001", "a/..b/c..jpg"])
def test_plain_keys_are_read(minio_server: MinioServer, store: S3Store, bucket: str, key: str) -> None:
    made = store.put(bucket, key, b"\0sea" * 50_000)
    assert reads_of(minio_server).get(bucket, key, "") == b"\0sea" * 50_000
    assert reads_of(minio_server).get(bucket, key, made.etag) == b"\0sea" * 50_000


@pytest.mark.parametrize(
    "key", ["a b", "a+b", "a%20b", "a//b", "/a", "a/", "ä", "a\nb", "a#b", "a?b", "'a'", "a*", "a~b"]
)
def test_odd_keys_are_left_to_boto3_which_reads_them(
    minio_server: MinioServer, store: S3Store, bucket: str, key: str
) -> None:
    reads = reads_of(minio_server)
    assert reads.get(bucket, key, "") is None
    if not key.startswith("/") and "//" not in key:  # which MinIO cannot store
        store.put(bucket, key, b"odd")
        assert store.get(bucket, key) == b"odd"


@pytest.mark.parametrize("key", [".", "..", "a/../b", "./a", "a/.", "a/..", ""])
def test_keys_that_no_store_has_are_left_to_boto3(minio_server: MinioServer, key: str) -> None:
    assert reads_of(minio_server).get("any", key, "") is None


def test_what_is_missing_or_has_changed_is_told(minio_server: MinioServer, store: S3Store, bucket: str) -> None:
    reads = reads_of(minio_server)
    first = store.put(bucket, "a.jpg", b"one")
    store.put(bucket, "a.jpg", b"another")
    with pytest.raises(ChangedError, match=r"a\.jpg has changed"):
        reads.get(bucket, "a.jpg", first.etag)
    with pytest.raises(MissingError, match=r"no object .*b\.jpg"):
        reads.get(bucket, "b.jpg", "")
    assert reads.get(f"{bucket}-not", "a.jpg", "") is None
    assert reads.get(bucket, "a.jpg", "") == b"another"  # none of these is a reason to rest


def test_a_refusal_is_left_to_boto3(minio_server: MinioServer, store: S3Store, bucket: str) -> None:
    store.put(bucket, "a.jpg", b"one")
    reads = reads_of(minio_server, secret_key="wrong")
    assert reads.get(bucket, "a.jpg", "") is None


def test_credentials_that_boto3_finds_are_used(
    minio_server: MinioServer, store: S3Store, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(bucket, "a.jpg", b"one")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio_server.secret_key)
    assert QuickReads(minio_server.endpoint, "", "", "us-east-1").get(bucket, "a.jpg", "") == b"one"


def test_without_any_credentials_boto3_is_left_to_say_so(
    minio_server: MinioServer, store: S3Store, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.put(bucket, "a.jpg", b"one")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert QuickReads(minio_server.endpoint, "", "", "us-east-1").get(bucket, "a.jpg", "") is None


def test_after_an_outage_boto3_has_a_minute_alone(tmp_path: Path) -> None:
    with minio(tmp_path / "minio") as server:
        store = S3Store(server.endpoint, server.access_key, server.secret_key)
        store.create_bucket("sea")
        store.put("sea", "a.jpg", b"one")
        reads = reads_of(server)
        assert reads.get("sea", "a.jpg", "") == b"one"
        server.kill()
        assert reads.get("sea", "a.jpg", "") is None
        server.restart()
        assert reads.get("sea", "a.jpg", "") is None
        assert store.get("sea", "a.jpg") == b"one"
        store.close()
