"""What every store does: one suite, run on a folder and on a real MinIO."""

from __future__ import annotations

import hashlib
import io
import secrets
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from buoy.errors import ChangedError, ExistsError, MissingError, StoreError
from buoy.store import Store, open_store
from buoy.store.s3 import S3Store
from support.minio import MinioServer

ODD_KEYS = [
    "plain.txt",
    "with space.txt",
    " leading and trailing ",
    "a+b.txt",
    "a%2Bb.txt",
    "100%.txt",
    "%",
    'quote\'s and "double".txt',
    "back\\slash",
    "am&p<l>t;.xml",
    "semi;colon?query#fragment=1&x",
    "käse/" + unicodedata.normalize("NFC", "Bjørn-é.jpg"),
    "käse/" + unicodedata.normalize("NFD", "Bjørn-é.jpg"),
    "魚/🐟.jpg",
    "new\nline",
    "tab\there",
    "$HOME/`id`/*?[x]",
    "~/x",
    "deep/" + "/".join("d" * 5 for _ in range(60)),
    "dots../x..y..z",
    "e" * 255,
    "ends.",
    "CON",
    "-rf",
]

#: A child that puts and reads 200 MB, and prints how its peak memory grew, in MiB.
BIG = """
import hashlib, io, sys
from pathlib import Path
from buoy.store import open_store

class Made(io.RawIOBase):
    left = 200 << 20
    def readable(self): return True
    def read(self, size=-1):
        size = min(self.left, 1 << 20 if size < 0 else size)
        self.left -= size
        return b"x" * size  # zeros would need no memory

where, access, secret, bucket, folder = sys.argv[1:]
store = open_store(where, access_key=access, secret_key=secret)
folder = Path(folder)
store.put(bucket, "small", b"x")
# Not ru_maxrss, which a child inherits from its parent.
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
before = peak()
assert store.put(bucket, "big", Made()).size_bytes == 200 << 20
print("put", peak() - before, file=sys.stderr)
assert store.fetch(bucket, "big", folder / "big").size_bytes == 200 << 20
store.put(bucket, "again", folder / "big", create_only=True)
digest = hashlib.sha256()
for piece in store.stream(bucket, "again"): digest.update(piece)
print(digest.hexdigest(), peak() - before)
store.close()
"""


#: A child that tries to create twenty objects, and prints which it did create.
RACE = """
import sys
from buoy.errors import ExistsError
from buoy.store import open_store

where, access, secret, bucket, number = sys.argv[1:]
store = open_store(where, access_key=access, secret_key=secret)
store.buckets()
print("ready", flush=True)
sys.stdin.readline()
for key in (f"k{each}" for each in range(20)):
    try:
        store.put(bucket, key, number.encode(), create_only=True)
        print(key)
    except ExistsError:
        pass
store.close()
"""


class Place:
    """Where a store is, so that other processes can open it too."""

    def __init__(self, where: str, access_key: str = "", secret_key: str = "") -> None:
        self.where, self.access_key, self.secret_key = where, access_key, secret_key

    def open(self) -> Store:
        return open_store(self.where, access_key=self.access_key, secret_key=self.secret_key)

    def run(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, self.where, self.access_key, self.secret_key, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(params=["folder", "minio"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(str(tmp_path / "buckets"))
    server: MinioServer = request.getfixturevalue("minio_server")
    return Place(server.endpoint, server.access_key, server.secret_key)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    opened = place.open()
    yield opened
    opened.close()


class Unseekable(io.RawIOBase):
    """A stream as a network gives it."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


def keys(store: Store, bucket: str, prefix: str = "") -> list[str]:
    return [each.key for each in store.walk(bucket, prefix)]


# Buckets


def test_a_bucket_is_made_once(store: Store) -> None:
    name = f"test-{secrets.token_hex(6)}"
    assert store.create_bucket(name) is True
    assert store.create_bucket(name) is False
    assert name in store.buckets()
    store.delete_bucket(name)
    assert name not in store.buckets()


@pytest.mark.parametrize("name", ["", "ab", "Upper", "a_b", "..", "a/b", "../x", ".buoy", "a" * 64, "a..b", "x-"])
def test_a_name_that_no_bucket_can_have_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="no name for a bucket"):
        store.create_bucket(name)
    with pytest.raises(MissingError):
        store.stat(name, "x")
    with pytest.raises(MissingError):
        store.put(name, "x", b"")
    with pytest.raises(MissingError):
        store.delete_bucket(name)


def test_a_bucket_is_deleted_with_everything_in_it(store: Store, bucket: str) -> None:
    for key in ["a", "b/c/d", "marker/", "odd\nname", "b/+ %"]:
        store.put(bucket, key, b"")
    store.delete_bucket(bucket)
    assert bucket not in store.buckets()
    with pytest.raises(MissingError, match="bucket"):
        store.get(bucket, "a")
    assert store.create_bucket(bucket) is True
    assert keys(store, bucket) == []


def test_every_call_says_that_a_bucket_is_missing(store: Store, tmp_path: Path) -> None:
    absent = f"absent-{secrets.token_hex(6)}"
    calls: list[Callable[[], object]] = [
        lambda: store.put(absent, "x", b""),
        lambda: store.put(absent, "x", b"", create_only=True),
        lambda: store.put(absent, "x", Unseekable(b"x")),  # type: ignore[arg-type]
        lambda: store.stat(absent, "x"),
        lambda: store.get(absent, "x"),
        lambda: store.stream(absent, "x"),
        lambda: store.fetch(absent, "x", tmp_path / "x"),
        lambda: store.list(absent),
        lambda: list(store.walk(absent)),
        lambda: store.delete(absent, "x"),
        lambda: store.delete_bucket(absent),
    ]
    for call in calls:
        with pytest.raises(MissingError, match=absent) as caught:
            call()
        assert not caught.value.retry
    assert not (tmp_path / "x").exists()


# Objects


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 100])
def test_bytes_come_back_as_they_were_put(store: Store, bucket: str, content: bytes, tmp_path: Path) -> None:
    made = store.put(bucket, "in/x.bin", content)
    assert (made.bucket, made.key, made.size_bytes) == (bucket, "in/x.bin", len(content))
    assert store.get(bucket, "in/x.bin") == content
    assert b"".join(store.stream(bucket, "in/x.bin")) == content
    found = store.fetch(bucket, "in/x.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert found.etag == made.etag == store.stat(bucket, "in/x.bin").etag
    assert [path.name for path in tmp_path.iterdir() if path.name != "buckets"] == ["copy"]
    assert abs(found.modified_s - made.modified_s) <= 2


def test_a_body_may_be_bytes_a_path_or_a_stream(store: Store, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    begun = io.BytesIO(b"skipped" + b"abc" * 1000)
    begun.seek(7)
    for body in (b"abc" * 1000, tmp_path / "file", begun, Unseekable(b"abc" * 1000)):
        for create_only in (False, True):
            if body is begun:
                begun.seek(7)
            elif isinstance(body, Unseekable):
                body = Unseekable(b"abc" * 1000)
            key = f"key-{secrets.token_hex(4)}"
            made = store.put(bucket, key, body, create_only=create_only)  # type: ignore[arg-type]
            assert made.size_bytes == 3000
            assert store.get(bucket, key) == b"abc" * 1000
    assert not begun.closed


def test_a_missing_file_to_put_is_told(store: Store, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing-there"):
        store.put(bucket, "x", tmp_path / "nothing-there")
    assert keys(store, bucket) == []


def test_a_stream_that_fails_leaves_nothing(store: Store, bucket: str) -> None:
    class Failing(Unseekable):
        def read(self, size: int = -1) -> bytes:
            if piece := super().read(size):
                return piece
            raise RuntimeError("the sender has gone")

    store.put(bucket, "there", b"before")
    for create_only in (False, True):
        with pytest.raises(RuntimeError, match="the sender has gone"):
            store.put(bucket, "new", Failing(b"half"), create_only=create_only)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the sender has gone"):
        store.put(bucket, "there", Failing(b"half"))  # type: ignore[arg-type]
    assert keys(store, bucket) == ["there"]
    assert store.get(bucket, "there") == b"before"


def test_putting_again_replaces_and_changes_the_etag(store: Store, bucket: str) -> None:
    first = store.put(bucket, "x", b"one")
    second = store.put(bucket, "x", b"two")
    assert first.etag != second.etag
    assert store.get(bucket, "x") == b"two"
    assert [each.etag for each in store.walk(bucket)] == [second.etag]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 0), (0, 4), (3, 7), (9, 10), (5, None), (8, 99), (10, None), (50, 60), (6, 2)]
)
def test_a_range_is_what_a_slice_is(store: Store, bucket: str, start: int, stop: int | None) -> None:
    store.put(bucket, "x", b"0123456789")
    assert store.get(bucket, "x", start=start, stop=stop) == b"0123456789"[start:stop]
    assert b"".join(store.stream(bucket, "x", start=start, stop=stop)) == b"0123456789"[start:stop]


def test_a_range_of_an_empty_object_is_empty(store: Store, bucket: str) -> None:
    store.put(bucket, "x", b"")
    assert store.get(bucket, "x", stop=10) == store.get(bucket, "x", start=3) == b""


def test_a_missing_object_is_told_at_the_call(store: Store, bucket: str, tmp_path: Path) -> None:
    store.put(bucket, "is/there", b"x")
    for key in ("absent", "is", "is/there/not", "is/not", "no/marker/"):
        for call in (store.stat, store.get, store.stream):
            with pytest.raises(MissingError, match=key):
                call(bucket, key)
        with pytest.raises(MissingError, match=key):
            store.fetch(bucket, key, tmp_path / "copy")
        with pytest.raises(MissingError, match=key):
            store.get(bucket, key, start=4, stop=2)
    assert not (tmp_path / "copy").exists()


def test_a_failed_fetch_leaves_the_old_file(store: Store, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"old")
    with pytest.raises(MissingError):
        store.fetch(bucket, "absent", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"old"


def test_deleting_is_no_error_when_nothing_is_there(store: Store, bucket: str) -> None:
    store.put(bucket, "a/b", b"x")
    store.delete(bucket, "a/b")
    store.delete(bucket, "a/b")
    store.delete(bucket, "never/was")
    store.delete(bucket, "a")
    assert keys(store, bucket) == []
    store.put(bucket, "a/b", b"x")
    store.delete(bucket, "a")
    assert keys(store, bucket) == ["a/b"]


def test_a_folder_marker_is_there_but_not_listed(store: Store, bucket: str) -> None:
    store.put(bucket, "input/", b"")
    assert store.stat(bucket, "input/").size_bytes == 0
    assert store.get(bucket, "input/") == b""
    store.put(bucket, "input/", b"")
    with pytest.raises(ExistsError):
        store.put(bucket, "input/", b"", create_only=True)
    store.put(bucket, "input/x", b"1")
    assert keys(store, bucket) == keys(store, bucket, "input/") == ["input/x"]
    shown = [each.key for each in store.list(bucket, markers=True).objects]
    assert shown == (["input/", "input/x"] if isinstance(store, S3Store) else ["input/x"])
    store.delete(bucket, "input/x")
    store.delete(bucket, "input/")
    with pytest.raises(MissingError):
        store.stat(bucket, "input/")


# Keys


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_come_back_exactly(store: Store, bucket: str, key: str, tmp_path: Path) -> None:
    assert store.put(bucket, key, key.encode(), create_only=True).key == key
    assert store.get(bucket, key) == key.encode()
    assert store.stat(bucket, key).key == key
    store.fetch(bucket, key, tmp_path / "copy")
    assert keys(store, bucket) == keys(store, bucket, key) == [key]
    assert store.list(bucket, after=key).objects == []
    with pytest.raises(ExistsError):
        store.put(bucket, key, b"", create_only=True)
    store.delete(bucket, key)
    assert keys(store, bucket) == []


def test_odd_keys_stay_apart_and_sorted(store: Store, bucket: str) -> None:
    for key in ODD_KEYS:
        store.put(bucket, key, key.encode())
    assert keys(store, bucket) == sorted(ODD_KEYS, key=str.encode)
    for key in ODD_KEYS:
        assert store.get(bucket, key) == key.encode()
    paged = []
    page = store.list(bucket, limit=1)
    while True:
        paged += [each.key for each in page.objects]
        if not page.next:
            break
        page = store.list(bucket, after=page.next, limit=1)
    assert paged == sorted(ODD_KEYS, key=str.encode)


@pytest.mark.parametrize(
    "key",
    ["", "..", ".", "../x", "a/../b", "a/..", "./a", "a/./b", "/../../etc/passwd", "nul\0", "k" * 1025, "\ud800"],
)
def test_a_key_that_leads_elsewhere_is_refused(store: Store, bucket: str, key: str, tmp_path: Path) -> None:
    store.put(bucket, "b", b"kept")
    for create_only in (False, True):
        with pytest.raises(StoreError, match="no key for an object"):
            store.put(bucket, key, b"evil", create_only=create_only)
    with pytest.raises(StoreError, match="no key for an object"):
        store.delete(bucket, key)
    for call in (store.stat, store.get, store.stream):
        with pytest.raises(MissingError):
            call(bucket, key)
    with pytest.raises(MissingError):
        store.fetch(bucket, key, tmp_path / "copy")
    assert store.get(bucket, "b") == b"kept"
    assert keys(store, bucket) == ["b"]


# Listing


def test_twelve_hundred_keys_come_in_pages(store: Store, bucket: str) -> None:
    expected = sorted([f"in/{number:04}.jpg" for number in range(1180)] + [f"in/d{n}/x" for n in range(20)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(bucket, key, b"x"), expected))
    assert keys(store, bucket) == keys(store, bucket, "in/") == expected
    first = store.list(bucket)
    assert [each.key for each in first.objects] == expected[:1000]
    assert first.next == expected[999]
    second = store.list(bucket, after=first.next)
    assert [each.key for each in second.objects] == expected[1000:]
    assert second.next == ""
    assert [each.key for each in store.list(bucket, "in/01", limit=50).objects] == expected[100:150]
    assert len(store.list(bucket, limit=1200).objects) == 1000
    exact = store.list(bucket, "in/00", limit=100)
    assert (len(exact.objects), exact.next) == (100, "")


def test_a_listing_is_in_byte_order_across_folders(store: Store, bucket: str) -> None:
    names = ["a.b", "a/b", "a/c/d", "a/c.d", "a0", "a", "b-/x", "b/x", "b", "é", "z", "🐟", "\uffee"]
    names = [name for name in names if name not in ("a", "b")]  # files where folders are
    for name in names:
        store.put(bucket, name, b"")
    expected = sorted(names, key=str.encode)
    assert keys(store, bucket) == expected
    for prefix in ["", "a", "a/", "a/c", "a/c/", "b", "b/", "é", "x", "a/c/d", "a/c/d/", "../", "a//", "/"]:
        assert keys(store, bucket, prefix) == [name for name in expected if name.startswith(prefix)], prefix
        for after in [*names, "a/", "a/c/", "a/b0", "0", "zz"]:
            found = [each.key for each in store.list(bucket, prefix, after=after).objects]
            wanted = [n for n in expected if n.startswith(prefix) and n.encode() > after.encode()]
            assert found == wanted, (prefix, after)


def test_a_listing_tells_size_etag_and_time(store: Store, bucket: str) -> None:
    made = store.put(bucket, "x", b"12345")
    (listed,) = store.list(bucket).objects
    assert listed == store.stat(bucket, "x")._replace(modified_s=listed.modified_s)
    assert (listed.size_bytes, listed.etag) == (5, made.etag)
    assert abs(listed.modified_s - made.modified_s) <= 2


# Racing writers


def test_of_32_racing_threads_one_creates(store: Store, bucket: str) -> None:
    for key in ("a", "deep/new/folder/b", "c"):
        gate = threading.Barrier(32)

        def create(number: int, key: str = key, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            try:
                store.put(bucket, key, b"%d" % number, create_only=True)
            except ExistsError:
                return False
            return True

        with ThreadPoolExecutor(32) as pool:
            won = list(pool.map(create, range(32)))
        assert won.count(True) == 1
        assert store.get(bucket, key) == b"%d" % won.index(True)
    assert keys(store, bucket) == ["a", "c", "deep/new/folder/b"]


def test_of_racing_processes_one_creates_each_object(place: Place, store: Store, bucket: str) -> None:
    children = [place.run(RACE, bucket, str(number)) for number in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    winners: dict[str, list[int]] = {}
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for number, child in enumerate(children):
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        for key in out.split():
            winners.setdefault(key, []).append(number)
    assert sorted(winners) == sorted(f"k{number}" for number in range(20))
    for key, won in winners.items():
        assert store.get(bucket, key) == b"%d" % won[0]
        assert len(won) == 1


def test_readers_see_whole_objects_while_writers_replace_them(store: Store, bucket: str) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    store.put(bucket, "x", contents[0])
    done = threading.Event()

    def write() -> None:
        for content in contents * 4:
            store.put(bucket, "x", content)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set() and not writing.done():
            assert store.get(bucket, "x") in contents
            assert keys(store, bucket) == ["x"]
        writing.result()


# Size


def test_a_big_object_goes_through_in_bounded_memory(place: Place, store: Store, bucket: str, tmp_path: Path) -> None:
    """Slow for its 800 MB of copies."""
    child = place.run(BIG, bucket, str(tmp_path))
    out, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    digest, grown_mib = out.split()
    expected = hashlib.sha256()
    for _ in range(200):
        expected.update(b"x" * (1 << 20))
    assert digest == expected.hexdigest()
    assert int(grown_mib) < 100, err


# Pinned reads


def test_a_pinned_read_gives_what_was_pinned_or_says_that_it_has_changed(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    pinned = store.put(bucket, "x +%.jpg", b"before").etag
    assert store.get(bucket, "x +%.jpg", etag=pinned) == b"before"
    assert store.get(bucket, "x +%.jpg", start=2, stop=4, etag=pinned) == b"fo"
    assert b"".join(store.stream(bucket, "x +%.jpg", etag=pinned)) == b"before"
    assert store.fetch(bucket, "x +%.jpg", tmp_path / "x", etag=pinned).etag == pinned
    assert next(store.walk(bucket)).etag == pinned

    store.put(bucket, "x +%.jpg", b"after!")
    with pytest.raises(ChangedError, match="changed"):
        store.get(bucket, "x +%.jpg", etag=pinned)
    with pytest.raises(ChangedError):
        store.stream(bucket, "x +%.jpg", etag=pinned)
    with pytest.raises(ChangedError):
        store.fetch(bucket, "x +%.jpg", tmp_path / "y", etag=pinned)
    assert not (tmp_path / "y").exists()

    store.delete(bucket, "x +%.jpg")
    with pytest.raises(MissingError):
        store.get(bucket, "x +%.jpg", etag=pinned)
