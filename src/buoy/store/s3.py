"""A store behind the S3 protocol: MinIO, Ceph, AWS and their like, through boto3.

This is the only file that imports boto3, on first use, since that takes 0.2 s and 50 MB.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

from buoy.errors import ChangedError, ExistsError, MissingError, StoreError, UsageError
from buoy.store import Body, Object, Page
from buoy.store.local import PIECE_BYTES, appearing, reading
from buoy.store.names import check_bucket, check_key
from buoy.store.s3_reads import QuickReads

__all__ = ["S3Store"]

_CONNECTIONS = 32
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
#: Above this, an object is sent in parts of this size, two at a time.
_PART_BYTES = 16 << 20
_CONFLICT_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
_NONCE = "buoy-nonce"

_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound", "404"}
#: How MinIO answers a prefix that no key of its own can start with.
_NO_KEY = {"XMinioInvalidObjectName", "XMinioInvalidResourceName"}
_AGAIN = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSkewed"}
_HINTS = {
    "AccessDenied": "give these credentials the right to do it, or use others",
    "403": "give these credentials the right to do it, or use others",
    "InvalidAccessKeyId": "check the access key",
    "SignatureDoesNotMatch": "check the secret key",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "XMinioStorageFull": "the disk of the store is full: free some space",
    "EntityTooLarge": "a create-only object can have 5 GiB at most",
    "BucketAlreadyExists": "the bucket belongs to somebody else: choose another name",
}


class S3Store:
    """Buckets and objects at an S3 endpoint; for many threads at once.

    Args:
        endpoint: such as `http://127.0.0.1:9000`.
        access_key: empty to let boto3 look (environment, AWS configuration).
        secret_key: belongs to the access key.
        region: where new buckets are made.
    """

    def __init__(self, endpoint: str, access_key: str = "", secret_key: str = "", region: str = "us-east-1"):
        self.endpoint = endpoint.rstrip("/")
        self.region = region
        self._keys = access_key, secret_key
        self._lock = threading.Lock()
        self._client: Any = None
        self._reads = QuickReads(self.endpoint, access_key, secret_key, region)

    def __repr__(self) -> str:
        return f"S3Store({self.endpoint!r})"

    @property
    def client(self) -> Any:
        """The boto3 client, for what goes beyond this interface (notifications)."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise UsageError(
                f"boto3, which talks to {self.endpoint}, is not installed", "pip install 'buoy[s3]'"
            ) from error
        access_key, secret_key = self._keys
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=access_key or None,
            aws_secret_access_key=secret_key or None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"mode": "standard", "total_max_attempts": 4},
                max_pool_connections=_CONNECTIONS,
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                tcp_keepalive=True,
            ),
        )
        client.meta.events.register("before-parse.s3.ListObjectsV2", _parse_page)
        return client

    def close(self) -> None:
        """Close the connections."""
        self._reads.close()
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    # Buckets

    def buckets(self) -> list[str]:
        """Names of all buckets, sorted."""
        with self.told():
            return sorted(bucket["Name"] for bucket in self.client.list_buckets()["Buckets"])

    def create_bucket(self, bucket: str) -> bool:
        """Make the bucket; `False` if it was there already."""
        check_bucket(bucket, read=False)
        try:
            with self.told(bucket):
                self.client.head_bucket(Bucket=bucket)
            return False  # AWS would say of a second creation that all went well
        except MissingError:
            pass
        place = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
        try:
            with self.told(bucket):
                self.client.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": place} if place else {}))
        except ExistsError:
            return False  # another was faster
        return True

    def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket and everything in it, older versions too."""
        check_bucket(bucket, read=True)
        with self.told(bucket):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                self._delete_all(bucket, [{"Key": found["Key"]} for found in page.get("Contents", [])])
        try:
            with self.told(bucket):
                self.client.delete_bucket(Bucket=bucket)
        except _Conflict:
            self._delete_versions(bucket)
            with self.told(bucket):
                self.client.delete_bucket(Bucket=bucket)

    def _delete_versions(self, bucket: str) -> None:
        with self.told(bucket):
            for page in self.client.get_paginator("list_object_versions").paginate(Bucket=bucket):
                versions = page.get("Versions", []) + page.get("DeleteMarkers", [])
                self._delete_all(bucket, [{k: v[k] for k in ("Key", "VersionId")} for v in versions])

    def _delete_all(self, bucket: str, versions: list[dict[str, str]]) -> None:
        # XML has no way to write most control characters.
        odd = [version for version in versions if not version["Key"].isprintable()]
        for version in odd:
            self.client.delete_object(Bucket=bucket, **version)
        even = [version for version in versions if version["Key"].isprintable()]
        if even:
            failed = self.client.delete_objects(Bucket=bucket, Delete={"Objects": even, "Quiet": True})
            for error in failed.get("Errors", []):
                raise StoreError(
                    f"{self._where(bucket, error['Key'])} cannot be deleted: {error.get('Message')}", retry=True
                )

    # Objects

    def put(self, bucket: str, key: str, body: Body, *, create_only: bool = False) -> Object:
        """Write the object whole or not at all; nobody ever reads half of it."""
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=False)
        with reading(body) as source:
            size_bytes = _size_of(source)
            if create_only:
                return self._create(bucket, key, source)
            if size_bytes is None or size_bytes > _PART_BYTES:
                return self._put_parts(bucket, key, source)
            with self.told(bucket, key):
                reply = self.client.put_object(Bucket=bucket, Key=key, Body=source)
            return _object_put(bucket, key, size_bytes, reply)

    def _put_parts(self, bucket: str, key: str, source: BinaryIO) -> Object:
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=2)
        # Of a stream that cannot go back, parts wait in memory: ten by default. boto3 has no parameter for it.
        config.max_in_memory_upload_chunks = 2
        with self.told(bucket, key):
            self.client.upload_fileobj(_Unclosed(source), bucket, key, Config=config)
        return self.stat(bucket, key)

    def _create(self, bucket: str, key: str, source: BinaryIO) -> Object:
        """Put with `If-None-Match: *`, which the server decides.

        When the reply of a try that did arrive is lost, the next try finds its own object: a nonce
        in the metadata tells it from another's. 409 says that another put is under way.
        """
        size_bytes = _size_of(source)
        if size_bytes is None:
            with TemporaryFile() as again:  # a retry has to read it once more
                shutil.copyfileobj(source, again, PIECE_BYTES)
                again.seek(0)
                return self._create(bucket, key, again)
        nonce = secrets.token_hex(16)
        begin = source.tell()
        for wait_s in (*_CONFLICT_WAITS_S, None):
            source.seek(begin)
            try:
                with self.told(bucket, key):
                    reply = self.client.put_object(
                        Bucket=bucket, Key=key, Body=source, IfNoneMatch="*", Metadata={_NONCE: nonce}
                    )
                return _object_put(bucket, key, size_bytes, reply)
            except ExistsError:
                if (mine := self._mine(bucket, key, nonce)) is not None:
                    return mine
                raise
            except _Conflict:
                if wait_s is None:
                    raise
                time.sleep(wait_s)
        raise AssertionError

    def _mine(self, bucket: str, key: str, nonce: str) -> Object | None:
        try:
            with self.told(bucket, key):
                reply = self.client.head_object(Bucket=bucket, Key=key)
        except MissingError:  # deleted meanwhile
            return None
        return _object_read(bucket, key, reply) if reply["Metadata"].get(_NONCE) == nonce else None

    def stat(self, bucket: str, key: str, *, version: str = "") -> Object:
        """Size, etag and time of one object, or of an older version of it."""
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=True)
        with self.told(bucket, key):
            return _object_read(bucket, key, self.client.head_object(Bucket=bucket, Key=key, **_which(version)))

    def get(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: str = ""
    ) -> bytes:
        """The bytes `start:stop` of the object (all of it by default), or of an older version of it."""
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=True)
        whole = not (start or version) and stop is None
        if whole and (data := self._reads.get(bucket, key, etag)) is not None:
            return data
        return b"".join(self._streamed(bucket, key, start, stop, etag, version))

    def stream(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> Generator[bytes]:
        """The same, in pieces of 1 MiB."""
        return self._streamed(bucket, key, start, stop, etag)

    def _streamed(
        self, bucket: str, key: str, start: int, stop: int | None, etag: str, version: str = ""
    ) -> Generator[bytes]:
        pieces = self._pieces(bucket, key, start, stop, etag, version)
        next(pieces)  # sends the request, so that it is this call that says if it is missing
        return pieces

    def _pieces(self, bucket: str, key: str, start: int, stop: int | None, etag: str, version: str) -> Generator[bytes]:
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=True)
        if stop is not None and stop <= start:
            self.stat(bucket, key, version=version)
            yield b""
            return
        wanted = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop else {}
        with self.told(bucket, key), self._unchanged(bucket, key):
            try:
                reply = self.client.get_object(Bucket=bucket, Key=key, **wanted, **_if_match(etag), **_which(version))
            except self.client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in ("InvalidRange", "416"):
                    raise
                yield b""  # it ends before `start`
                return
            with closing(reply["Body"]) as body:
                yield b""
                yield from body.iter_chunks(PIECE_BYTES)

    def fetch(self, bucket: str, key: str, path: Path, *, etag: str = "", version: str = "") -> Object:
        """Write the object (or a version of it) into a local file in bounded memory; it appears only when complete."""
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=True)
        with self.told(bucket, key), self._unchanged(bucket, key):
            reply = self.client.get_object(Bucket=bucket, Key=key, **_if_match(etag), **_which(version))
            with closing(reply["Body"]) as body, appearing(path) as copy:
                for piece in body.iter_chunks(PIECE_BYTES):
                    copy.write(piece)
        return _object_read(bucket, key, reply)

    def list(self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, markers: bool = False) -> Page:
        """Up to `limit` (and 1,000) objects whose keys start with `prefix` and come after `after`."""
        check_bucket(bucket, read=True)
        with self.told(bucket):
            try:
                reply = self.client.list_objects_v2(
                    Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=min(limit, 1000)
                )
            except self.client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in _NO_KEY:
                    raise
                return Page([], "")
        found = [_object_listed(bucket, entry) for entry in reply.get("Contents", [])]
        shown = [each for each in found if markers or each.size_bytes or not each.key.endswith("/")]
        return Page(shown, found[-1].key if reply["IsTruncated"] and found else "")

    def walk(self, bucket: str, prefix: str = "") -> Iterator[Object]:
        """All objects under the prefix, page by page."""
        after = ""
        while True:
            page = self.list(bucket, prefix, after=after)
            yield from page.objects
            if not (after := page.next):
                return

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; no error if it is not there."""
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=False)
        with self.told(bucket, key):
            self.client.delete_object(Bucket=bucket, Key=key)

    def presign(self, bucket: str, key: str, operation: Literal["get", "put"], expires_s: int) -> str:
        """A URL with which anybody can read or write this one object until it expires."""
        check_bucket(bucket, read=True)
        check_key(key, file=False, read=False)
        with self.told(bucket, key):
            url: str = self.client.generate_presigned_url(
                f"{operation}_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires_s
            )
            return url

    # Inside

    def _where(self, bucket: str = "", key: str = "") -> str:
        return "/".join(part for part in (self.endpoint, bucket, key) if part)

    @contextmanager
    def _unchanged(self, bucket: str, key: str) -> Iterator[None]:
        """Tell a refused condition of a GET from that of a put: both are answered with 412."""
        try:
            yield
        except self.client.exceptions.ClientError as error:
            if error.response["Error"].get("Code") not in ("PreconditionFailed", "412"):
                raise
            raise ChangedError(f"{self._where(bucket, key)} has changed") from error

    @contextmanager
    def told(self, bucket: str = "", key: str = "") -> Iterator[None]:
        """Turn what boto3 raises into our errors."""
        _ = self.client  # says if boto3 is not there
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            NoCredentialsError,
        )

        where = self._where(bucket, key)
        try:
            yield
        except ClientError as error:
            raise self._error(error.response, bucket, key) from error
        except NoCredentialsError as error:
            raise StoreError(f"{where}: no credentials", "give an access key and a secret key") from error
        except (ConnectionError, HTTPClientError) as error:
            hint = f"is the store at {self.endpoint} running, and reachable from here?"
            raise StoreError(f"{where}: {error}", hint, retry=True) from error
        except (BotoCoreError, Boto3Error) as error:
            if isinstance(error.__cause__, ClientError):
                raise self._error(error.__cause__.response, bucket, key) from error
            raise StoreError(f"{where}: {error}", "try again", retry=True) from error

    def _error(self, response: dict[str, Any], bucket: str, key: str) -> StoreError:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = response["Error"].get("Code", str(status))
        where = self._where(bucket, key)
        if code in _MISSING:
            if key and code != "NoSuchBucket":
                return MissingError(f"there is no object {where}")
            return MissingError(f"there is no bucket {bucket!r} at {self.endpoint}", "make it first")
        if code in ("PreconditionFailed", "412", "BucketAlreadyOwnedByYou"):
            return ExistsError(f"{where} is there already")
        message = f"{where}: {response['Error'].get('Message') or 'refused'} ({code})"
        if status == 409 and code != "BucketAlreadyExists":
            return _Conflict(message, "try again", retry=True, code=code)
        again = code in _AGAIN or status >= 500 or status == 429
        return StoreError(message, _HINTS.get(code, "try again" if again else ""), retry=again, code=code)


class _Conflict(StoreError):
    """Another request for the same object is under way."""


class _Unclosed:
    """A stream that stays open: s3transfer closes what it has read, but it is the caller's."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        if stream.seekable():
            self.seek = stream.seek
            self.tell = stream.tell


def _if_match(etag: str) -> dict[str, str]:
    return {"IfMatch": f'"{etag}"'} if etag else {}


def _which(version: str) -> dict[str, str]:
    return {"VersionId": version} if version else {}


def _parse_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Read the entries of a listing ahead of botocore: it takes 45 µs for each, and this 5 µs.

    What is left of the answer, and whatever is odd about it, is botocore's business.
    """
    if response_dict["status_code"] != 200:
        return
    try:
        root = ElementTree.fromstring(response_dict["body"])
        tag = root.tag.removesuffix("ListBucketResult") + "Contents"
        entries = [each for each in root if each.tag == tag]
        customized_response_dict["Contents"] = [_entry(each) for each in entries]
    except (ElementTree.ParseError, KeyError, TypeError, ValueError):
        customized_response_dict.clear()
        return
    root[:] = [each for each in root if each.tag != tag]
    response_dict["body"] = ElementTree.tostring(root)


def _entry(element: Any) -> dict[str, Any]:
    texts = {each.tag.rpartition("}")[2]: each.text for each in element}
    return {
        "Key": texts["Key"],
        "ETag": texts["ETag"],
        "Size": int(texts["Size"]),
        "LastModified": datetime.fromisoformat(texts["LastModified"]),
    }


def _size_of(source: BinaryIO) -> int | None:
    """How many bytes are left to read; `None` if the stream cannot tell."""
    if not source.seekable():
        return None
    here = source.tell()
    end = source.seek(0, os.SEEK_END)
    source.seek(here)
    return end - here


def _object_read(bucket: str, key: str, reply: dict[str, Any]) -> Object:
    etag = reply["ETag"].strip('"')
    return Object(bucket, key, reply["ContentLength"], etag, reply["LastModified"].timestamp())


def _object_listed(bucket: str, entry: dict[str, Any]) -> Object:
    etag = entry["ETag"].strip('"')
    return Object(bucket, entry["Key"], entry["Size"], etag, entry["LastModified"].timestamp())


def _object_put(bucket: str, key: str, size_bytes: int, reply: dict[str, Any]) -> Object:
    """Describe what was put; asking for it could answer with what another has put since."""
    date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
    modified_s = parsedate_to_datetime(date).timestamp() if date else time.time()
    return Object(bucket, key, size_bytes, reply["ETag"].strip('"'), modified_s)
