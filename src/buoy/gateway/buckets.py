"""OSCAR's `/system/buckets` routes, and the signed URLs of the folder store."""

from __future__ import annotations

import hmac
import mimetypes
import tempfile
import time
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from buoy.errors import ExistsError, MissingError, UsageError
from buoy.gateway.http import Denied, compact, json_body, sync
from buoy.gateway.node import OWNER, Node
from buoy.gateway.system import stamp
from buoy.store.folder import FolderStore
from buoy.store.s3 import S3Store

__all__ = ["Buckets", "send_object"]

_PAGE, _LARGEST_PAGE = 70, 1000
_EXPIRES_S, _LONGEST_EXPIRES_S = 900, 604_800
_IN_MEMORY_BYTES = 1 << 20


class Buckets:
    """The endpoints, for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.buckets, self.create, self.update = sync(self._buckets), sync(self._create), sync(self._update)
        self.bucket, self.delete, self.presign = sync(self._bucket), sync(self._delete), sync(self._presign)

    def _buckets(self, request: Request, _: bytes) -> Response:
        return compact([_shown(bucket) for bucket in self._node.store.buckets()])

    def _create(self, request: Request, body: bytes) -> Response:
        bucket = _bucket_name(json_body(body))
        if not self._node.store.create_bucket(bucket):
            raise ExistsError(f"the bucket {bucket!r} is there already")
        return Response(status_code=201)

    def _update(self, request: Request, body: bytes) -> Response:
        """Accept what upstream accepts; with one user, visibility changes nothing."""
        self._there(_bucket_name(json_body(body)))
        return Response(status_code=204)

    def _bucket(self, request: Request, _: bytes) -> Response:
        bucket = request.path_params["bucket"]
        limit = request.query_params.get("limit", "")
        size = min(_LARGEST_PAGE, max(1, int(limit))) if limit.isdecimal() else _PAGE
        page = self._node.store.list(bucket, after=request.query_params.get("page", ""), limit=size)
        shown = _shown(bucket) | {
            "objects": [
                {"object_name": o.key, "size_bytes": o.size_bytes, "last_modified": stamp(o.modified_s)}
                for o in page.objects
            ]
        }
        if page.next:
            shown["next_page"] = page.next
        return compact(shown | {"is_truncated": bool(page.next), "returned_items": len(page.objects)})

    def _delete(self, request: Request, _: bytes) -> Response:
        self._node.store.delete_bucket(request.path_params["bucket"])
        return Response(status_code=204)

    def _presign(self, request: Request, body: bytes) -> Response:
        bucket, asked = request.path_params["bucket"], json_body(body)
        self._there(bucket)
        key, operation = asked.get("object_key"), asked.get("operation")
        method = {"upload": "PUT", "download": "GET"}.get(operation)
        if not isinstance(key, str) or not key:
            raise UsageError("object_key is missing", 'send {"object_key": "folder/name", "operation": "upload"}')
        if method is None:
            raise UsageError(f"operation {operation!r}", "upload or download")
        # the server reads expires_in, oscar-python sends expires
        expires_s = asked.get("expires_in") or asked.get("expires") or _EXPIRES_S
        if not isinstance(expires_s, int) or not 1 <= expires_s <= _LONGEST_EXPIRES_S:
            raise UsageError(f"expires_in {expires_s!r}", f"seconds, from 1 to {_LONGEST_EXPIRES_S}")
        answer: dict[str, Any] = {
            "object_key": key,
            "operation": operation,
            "method": method,
            "url": self._url(request, method, bucket, key, expires_s),
            "expires_at": stamp(time.time() + expires_s),
        }
        return compact(answer)

    def _url(self, request: Request, method: str, bucket: str, key: str, expires_s: int) -> str:
        store = self._node.store
        if not isinstance(store, FolderStore):
            return cast(S3Store, store).presign(bucket, key, "put" if method == "PUT" else "get", expires_s)
        expires = str(int(time.time()) + expires_s)
        signature = self._node.credentials.sign(method, bucket, key, expires)
        return f"{request.base_url}object/{bucket}/{quote(key)}?expires={expires}&signature={signature}"

    def _there(self, bucket: str) -> None:
        if bucket not in self._node.store.buckets():
            raise MissingError(f"there is no bucket {bucket!r}", "see GET /system/buckets")

    async def object(self, request: Request) -> Response:
        """Take or give an object to whoever holds a signed URL."""
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        expires = request.query_params.get("expires", "")
        wanted = self._node.credentials.sign(
            "GET" if request.method == "HEAD" else request.method, bucket, key, expires
        )
        if not hmac.compare_digest(wanted.encode(), request.query_params.get("signature", "").encode()):
            raise Denied("the URL is not one that buoy signed", "ask for a new one", status=403)
        if int(expires) < time.time():
            raise Denied("the URL is too old", "ask for a new one", status=403)
        if request.method != "PUT":
            return await run_in_threadpool(send_object, self._node, request, bucket, key)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(self._node.settings.data / "work")) as upload:
            async for piece in request.stream():
                await run_in_threadpool(upload.write, piece)
            upload.seek(0)
            put = await run_in_threadpool(self._node.store.put, bucket, key, cast(BinaryIO, upload))
        return Response(headers={"ETag": f'"{put.etag}"'})


def send_object(node: Node, request: Request, bucket: str, key: str) -> Response:
    """The object, or the one range of it that was asked for."""
    obj = node.store.stat(bucket, key)
    start, stop = 0, obj.size_bytes
    asked = _range(request.headers.get("range", ""), obj.size_bytes)
    headers = {"ETag": f'"{obj.etag}"', "Accept-Ranges": "bytes"}
    if asked is not None:
        start, stop = asked
        if start >= stop:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{obj.size_bytes}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{obj.size_bytes}"
    headers["Content-Length"] = str(stop - start)
    kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
    status = 200 if asked is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    pieces = node.store.stream(bucket, key, start=start, stop=stop)
    return StreamingResponse(pieces, status, headers, media_type=kind)


def _range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """`bytes=a-b`, `bytes=a-` or `bytes=-n` as start and stop; `None` for all of it (RFC 9110, 14.2)."""
    unit, _, span = header.partition("=")
    first, dash, last = span.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not (first + last).isdecimal():
        return None
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    return int(first), min(size_bytes, int(last) + 1 if last else size_bytes)


def _bucket_name(body: Any) -> str:
    name = body.get("bucket_name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise UsageError("bucket_name is missing", 'send {"bucket_name": "..."}')
    return name


def _shown(bucket: str) -> dict[str, Any]:
    return {"bucket_name": bucket, "visibility": "private", "allowed_users": [], "owner": OWNER}
