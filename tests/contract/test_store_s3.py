"""What only the S3 store does: the network between, and what an S3 server has beyond objects."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from buoy.errors import ExistsError, MissingError, StoreError
from buoy.store.s3 import S3Store
from support.minio import MinioServer, minio, opened


class LossyProxy:
    """Passes connections on to a server, but loses the replies to the first PUTs, after the server has acted."""

    def __init__(self, port: int, lose: int) -> None:
        self._port = port
        self.lost = 0
        self._lose = lose
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            sending = threading.Thread(target=self._send, args=(client, server))
            sending.start()
            with contextlib.suppress(OSError):
                while reply := server.recv(1 << 16):
                    if not reply.startswith(b"HTTP/1.1 100") and self._putting and self.lost < self._lose:
                        self.lost += 1
                        break
                    client.sendall(reply)
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            sending.join()

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while request := client.recv(1 << 16):
                self._putting = request.startswith(b"PUT") or (
                    self._putting and not request.startswith((b"GET", b"HEAD", b"POST", b"DELETE"))
                )
                server.sendall(request)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    _putting = False


def test_a_create_whose_reply_was_lost_is_known_as_our_own(
    minio_server: MinioServer, store: S3Store, bucket: str
) -> None:
    proxy = LossyProxy(minio_server.port, lose=2)
    try:
        with opened(minio_server, proxy.endpoint) as far:
            made = far.put(bucket, "claim", b"mine", create_only=True)
            assert proxy.lost == 2
            assert made.size_bytes == 4
            with pytest.raises(ExistsError):
                far.put(bucket, "claim", b"mine", create_only=True)
    finally:
        proxy.close()
    assert store.get(bucket, "claim") == b"mine"
    assert store.stat(bucket, "claim").etag == made.etag


def test_a_store_that_is_not_there_is_told_with_its_endpoint() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        store = S3Store(endpoint, "key", "secret")
        with pytest.raises(StoreError, match=endpoint) as caught:
            store.get("bucket", "key")
        store.close()
    assert caught.value.retry
    assert "running" in caught.value.hint


def test_the_same_store_goes_on_after_an_outage(tmp_path: Path) -> None:
    with minio(tmp_path / "minio") as server, opened(server) as store:
        store.create_bucket("sea")
        store.put("sea", "x", b"before")
        server.kill()
        for act in (lambda: store.put("sea", "x", b"lost"), lambda: store.get("sea", "x")):
            with pytest.raises(StoreError) as caught:
                act()
            assert caught.value.retry
        server.restart()
        assert store.get("sea", "x") == b"before"
        store.put("sea", "x", b"after")
        assert store.get("sea", "x") == b"after"


def test_wrong_credentials_are_told_and_not_retried(minio_server: MinioServer) -> None:
    with opened(minio_server, secret_key="wrong-secret") as store:
        with pytest.raises(StoreError) as caught:
            store.buckets()
        assert not caught.value.retry
        assert "check the secret key" in caught.value.hint


def test_a_key_that_the_server_refuses_is_told(store: S3Store, bucket: str) -> None:
    with pytest.raises(StoreError, match=bucket) as caught:
        store.put(bucket, "a//b", b"")
    assert not caught.value.retry


def test_a_presigned_url_reads_or_writes_one_object(store: S3Store, bucket: str) -> None:
    key = "in/käse +%2B 🐟.jpg"
    sending = urllib.request.Request(store.presign(bucket, key, "put", 60), data=b"picture", method="PUT")
    with urllib.request.urlopen(sending) as reply:
        assert reply.status == 200
    with urllib.request.urlopen(store.presign(bucket, key, "get", 60)) as reply:
        assert reply.read() == b"picture"
    reading = urllib.request.Request(store.presign(bucket, key, "get", 60), data=b"evil", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(reading)
    caught.value.close()
    assert store.get(bucket, key) == b"picture"


def test_a_bucket_with_versions_is_deleted_whole(store: S3Store, bucket: str) -> None:
    store.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for content in (b"one", b"two"):
        store.put(bucket, "x", content)
    store.delete(bucket, "x")
    store.put(bucket, "y\n", b"")
    store.delete_bucket(bucket)
    assert bucket not in store.buckets()


def test_many_parts_come_back_as_one_object(store: S3Store, bucket: str, tmp_path: Path) -> None:
    content = secrets.token_bytes(1 << 20) * 40 + b"end"
    (tmp_path / "big").write_bytes(content)
    with (tmp_path / "big").open("rb") as file:
        made = store.put(bucket, "parts", file)
        assert not file.closed
    assert made.size_bytes == len(content)
    assert made.etag.endswith("-3")
    assert store.get(bucket, "parts") == content
    assert store.get(bucket, "parts", start=(16 << 20) - 5, stop=(16 << 20) + 5) == content[(16 << 20) - 5 :][:10]


def test_a_multipart_put_into_a_missing_bucket_is_told(store: S3Store) -> None:
    with pytest.raises(MissingError, match="there is no bucket"):
        store.put(f"absent-{secrets.token_hex(6)}", "x", bytes(40 << 20))


def test_without_boto3_the_error_says_what_to_install() -> None:
    program = """
import sys
from buoy.errors import UsageError
from buoy.store import open_store
assert "boto3" not in sys.modules
sys.modules["boto3"] = None
try:
    open_store("http://127.0.0.1:9", access_key="a", secret_key="b").buckets()
except UsageError as error:
    assert "buoy[s3]" in error.hint
else:
    sys.exit("no error")
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
