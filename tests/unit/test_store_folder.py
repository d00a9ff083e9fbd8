"""What only the folder store does: it shares its files with people and programs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buoy.errors import MissingError, StoreError
from buoy.store import complete
from buoy.store.complete import is_whole, leases_trusted
from buoy.store.folder import FolderStore

#: Writes a file in steps: one per line on stdin; closes it at the end of stdin.
WRITER = """
import sys
with open(sys.argv[1], sys.argv[2]) as file:
    print("open", flush=True)
    for line in sys.stdin:
        file.write(line)
        file.flush()
        print("written", flush=True)
print("closed", flush=True)
"""


class Writer:
    """Another process that is slow in writing a file."""

    def __init__(self, path: Path, mode: str = "w") -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", WRITER, str(path), mode]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._expect("open")

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        self._expect("written")

    def close(self) -> None:
        if self._process.poll() is None:
            out, _ = self._process.communicate()
            assert out == "closed\n"

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == word + "\n"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "buckets")
    store.create_bucket("sea")
    return store


@pytest.fixture
def sea(store: FolderStore) -> Path:
    """The folder of the bucket `sea`."""
    if not leased(store.root):
        pytest.skip("the temporary folder is on a file system that is not trusted with leases")
    return store.root / "sea"


def leased(folder: Path) -> bool:
    fd = os.open(folder, os.O_RDONLY)
    try:
        return leases_trusted(fd)
    finally:
        os.close(fd)


def keys(store: FolderStore) -> list[str]:
    return [each.key for each in store.walk("sea")]


# Files that come from elsewhere


def test_a_file_is_no_object_until_its_writer_has_closed_it(store: FolderStore, sea: Path, tmp_path: Path) -> None:
    writer = Writer(sea / "x.jpg")
    for _ in range(3):
        writer.write("half")
        assert not store.is_complete("sea", "x.jpg")
        assert keys(store) == []
        for call in (store.stat, store.get, store.stream):
            with pytest.raises(MissingError, match="still being written") as caught:
                call("sea", "x.jpg")
            assert caught.value.retry
        with pytest.raises(MissingError, match="still being written"):
            store.fetch("sea", "x.jpg", tmp_path / "copy")
    writer.close()
    assert store.is_complete("sea", "x.jpg")
    assert keys(store) == ["x.jpg"]
    assert store.get("sea", "x.jpg") == b"half\n" * 3


def test_a_file_that_is_written_again_is_no_object_meanwhile(store: FolderStore, sea: Path) -> None:
    before = store.put("sea", "x.jpg", b"first\n")
    writer = Writer(sea / "x.jpg", "a")
    assert not store.is_complete("sea", "x.jpg")
    writer.write("second")
    writer.close()
    assert store.get("sea", "x.jpg") == b"first\nsecond\n"
    assert store.stat("sea", "x.jpg").etag != before.etag


def test_a_file_that_is_renamed_while_it_is_written_stays_no_object(store: FolderStore, sea: Path) -> None:
    writer = Writer(sea / "x.jpg.part")
    writer.write("half")
    assert keys(store) == []
    os.rename(sea / "x.jpg.part", sea / "x.jpg")
    assert keys(store) == []
    writer.close()
    assert keys(store) == ["x.jpg"]


def test_putting_over_a_file_that_is_written_wins(store: FolderStore, sea: Path) -> None:
    writer = Writer(sea / "x.jpg")
    writer.write("half")
    store.put("sea", "x.jpg", b"whole")
    writer.write("more")
    assert store.get("sea", "x.jpg") == b"whole"
    writer.close()
    assert store.get("sea", "x.jpg") == b"whole"


def test_files_moved_in_renamed_and_replaced_are_objects_at_once(store: FolderStore, sea: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / "2011").mkdir(parents=True)
    (tmp_path / "set" / "2011" / "a.jpg").write_bytes(b"a")
    os.utime(tmp_path / "set" / "2011" / "a.jpg", (1_300_000_000, 1_300_000_000))
    shutil.move(tmp_path / "set", sea / "input")
    assert keys(store) == ["input/2011/a.jpg"]
    assert store.stat("sea", "input/2011/a.jpg").modified_s == 1_300_000_000
    os.rename(sea / "input" / "2011", sea / "input" / "2012")
    os.rename(sea / "input" / "2012" / "a.jpg", sea / "input" / "2012" / "b.jpg")
    assert keys(store) == ["input/2012/b.jpg"]
    before = store.stat("sea", "input/2012/b.jpg")
    (tmp_path / "new").write_bytes(b"b")
    os.utime(tmp_path / "new", (1_300_000_000, 1_300_000_000))
    os.replace(tmp_path / "new", sea / "input" / "2012" / "b.jpg")
    after = store.stat("sea", "input/2012/b.jpg")
    assert (after.size_bytes, after.modified_s) == (before.size_bytes, before.modified_s)
    assert after.etag != before.etag
    shutil.copy(sea / "input" / "2012" / "b.jpg", sea / "c.jpg")
    assert keys(store) == ["c.jpg", "input/2012/b.jpg"]


@pytest.mark.parametrize(
    "name",
    [".hidden", ".x.jpg.Ab12Cd", "x.jpg.part", "x.PART", "x.partial", "x.crdownload", "x.tmp", "x~", ".x.swp", "x.swp",
     "x.filepart", ".folder/x.jpg"],
)  # fmt: skip
def test_a_hidden_or_unfinished_name_is_no_object(store: FolderStore, sea: Path, name: str) -> None:
    (sea / name).parent.mkdir(exist_ok=True)
    (sea / name).write_bytes(b"x")
    assert keys(store) == []
    assert store.locate(sea / name) is None
    with pytest.raises(MissingError):
        store.get("sea", name)
    with pytest.raises(StoreError, match="no key for an object"):
        store.put("sea", name, b"y")
    assert (sea / name).read_bytes() == b"x"


def test_a_name_that_is_not_utf8_is_no_object_and_is_told(
    store: FolderStore, sea: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open(os.fsencode(sea) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    assert keys(store) == []
    assert "not UTF-8" in caplog.text


def test_what_is_no_file_is_no_object(store: FolderStore, sea: Path) -> None:
    os.mkfifo(sea / "pipe")
    with socket.socket(socket.AF_UNIX) as plug:
        here = os.getcwd()
        os.chdir(sea)
        try:
            plug.bind("plug")
        finally:
            os.chdir(here)
        assert keys(store) == []
        for key in ("pipe", "plug"):
            with pytest.raises(MissingError):
                store.get("sea", key)


def test_a_file_for_which_there_is_no_right_is_told(store: FolderStore, sea: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    store.put("sea", "x", b"x")
    (sea / "x").chmod(0)
    with pytest.raises(StoreError, match="Permission denied"):
        store.get("sea", "x")


def test_locate_gives_bucket_and_key(store: FolderStore) -> None:
    assert store.locate(store.root / "sea" / "input" / "x y.jpg") == ("sea", "input/x y.jpg")
    for path in (store.root, store.root / "sea", store.root / ".buoy" / "new" / "ab", Path("/etc/passwd")):
        assert store.locate(path) is None


# Nothing leads out


def test_symbolic_links_are_never_followed(store: FolderStore, sea: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (sea / "folder").symlink_to(outside)
    (sea / "file").symlink_to(outside / "secret")
    (store.root / "other").symlink_to(outside)
    assert keys(store) == []
    assert list(store.walk("sea", "folder/")) == []
    assert store.buckets() == ["sea"]
    for bucket, key in (("sea", "folder/secret"), ("sea", "file"), ("sea", "folder/"), ("other", "secret")):
        with pytest.raises(MissingError):
            store.get(bucket, key)
    with pytest.raises(StoreError):
        store.put("sea", "folder/new", b"x")
    with pytest.raises(MissingError):
        store.put("other", "new", b"x")
    store.put("sea", "file", b"replaces the link, not what it points to")
    store.delete("sea", "folder/secret")
    store.delete_bucket("sea")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def segments() -> st.SearchStrategy[str]:
    evil = st.sampled_from(["..", ".", "", "a", "b", "a.tmp", ".x", "...", "~", "x" * 256, "é", "\0", "\\..", "a\n"])
    return evil | st.text(max_size=12)


@given(names=st.lists(st.lists(segments(), min_size=1, max_size=4).map("/".join), max_size=8))
def test_any_keys_are_refused_or_kept_exactly(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as top:
        store = FolderStore(Path(top) / "down" / "buckets")
        store.create_bucket("sea")
        kept = {}
        for number, name in enumerate(names):
            try:
                store.put("sea", name, b"" if name.endswith("/") else b"%d" % number)
            except StoreError:
                with pytest.raises(MissingError):
                    store.get("sea", name)
                continue
            kept[name] = b"" if name.endswith("/") else b"%d" % number
        shown = sorted((name for name in kept if not name.endswith("/")), key=str.encode)
        assert keys(store) == shown
        assert {name: store.get("sea", name) for name in kept} == kept
        assert os.listdir(top) == ["down"]
        assert sorted(os.listdir(store.root)) in (["sea"], [".buoy", "sea"])
        files = {
            os.path.relpath(os.path.join(at, f), store.root / "sea") for at, _, fs in os.walk(store.root) for f in fs
        }
        assert files == set(shown)


@given(
    names=st.sets(st.lists(st.sampled_from(["a", "b", "a.b", "é", "a b", "0"]), min_size=1, max_size=3).map("/".join)),
    prefix=st.text(alphabet="ab./é 0", max_size=4),
    after=st.text(alphabet="ab./é 0", max_size=4),
    limit=st.integers(1, 5),
)
def test_any_listing_is_the_sorted_keys(names: set[str], prefix: str, after: str, limit: int) -> None:
    with tempfile.TemporaryDirectory() as top:
        store = FolderStore(Path(top))
        store.create_bucket("sea")
        kept = []
        for name in names:
            try:
                store.put("sea", name, b"")
                kept.append(name)
            except StoreError:
                pass  # below another object
        expected = sorted(n for n in kept if n.startswith(prefix) and n.encode() > after.encode())
        found = []
        page = store.list("sea", prefix, after=after, limit=limit)
        while page.next:
            assert len(page.objects) == limit
            found += page.objects
            page = store.list("sea", prefix, after=page.next, limit=limit)
        assert [each.key for each in [*found, *page.objects]] == sorted(expected, key=str.encode)


def test_nothing_lies_below_an_object(store: FolderStore) -> None:
    store.put("sea", "a", b"")
    store.put("sea", "b/c", b"")
    for key in ("a/b", "a/", "b"):
        for create_only in (False, True):
            with pytest.raises(StoreError, match="cannot be written") as caught:
                store.put("sea", key, b"", create_only=create_only)
            assert type(caught.value) is StoreError
    with pytest.raises(StoreError, match="has no content"):
        store.put("sea", "x/", b"content")
    assert keys(store) == ["a", "b/c"]


# Faults


def leftovers(root: Path) -> list[Path]:
    return [path for path in (root / ".buoy").rglob("*") if path.is_file()]


def in_a_namespace(program: str, folder: Path, mount: str) -> subprocess.CompletedProcess[str]:
    """Run a program with a file system of its own mounted at `folder`."""
    unshare = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    folder.mkdir()
    script = f'mount -t tmpfs {mount} none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    command = [*unshare, "sh", "-c", script, "sh", str(folder), sys.executable, program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not on this machine")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"this machine does not let us mount in a namespace of our own: {done.stderr.strip()}")
    return done


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from buoy.errors import StoreError
from buoy.store.folder import FolderStore
root = Path(sys.argv[1])
store = FolderStore(root)
store.create_bucket("sea")
store.put("sea", "x", bytes(1 << 20))
for key in ("x", "y"):
    try:
        store.put("sea", key, bytes(2 << 20))
    except StoreError as error:
        assert "No space left" in error.message and "free some space" in error.hint and error.retry, error
    else:
        sys.exit("no error")
assert [o.size_bytes for o in store.walk("sea")] == [1 << 20]
assert [p for p in (root / ".buoy").rglob("*") if p.is_file()] == []
try:
    store.fetch("sea", "x", root / "copy" )
    store.fetch("sea", "x", root / "copy2")
except StoreError as error:
    assert "copy2" in error.message and "free some space" in error.hint, error
else:
    sys.exit("no error")
assert sorted(p.name for p in root.iterdir()) == [".buoy", "copy", "sea"]
"""
    done = in_a_namespace(program, tmp_path / "full", "-o size=2560k")
    assert done.returncode == 0, done.stderr


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    program = """
import os, subprocess, sys
from pathlib import Path
from buoy.errors import StoreError
from buoy.store.folder import FolderStore
store = FolderStore(Path(sys.argv[1]))
store.create_bucket("sea")
store.put("sea", "x", b"x")
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
assert store.get("sea", "x") == b"x"
assert [o.key for o in store.walk("sea")] == ["x"]
for act in (
    lambda: store.put("sea", "y", b""),
    lambda: store.delete("sea", "x"),
    lambda: store.create_bucket("new"),
    lambda: store.delete_bucket("sea"),
):
    try:
        act()
    except StoreError as error:
        assert "Read-only" in error.message and "choose another folder" in error.hint, error
    else:
        sys.exit("no error")
"""
    done = in_a_namespace(program, tmp_path / "ro", "-o size=1m")
    assert done.returncode == 0, done.stderr


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(store: FolderStore) -> None:
    program = """
import io, os, sys
from pathlib import Path
from buoy.store.folder import FolderStore
class Dying(io.RawIOBase):
    pieces = [b"half"]
    def read(self, size=-1):
        if self.pieces:
            return self.pieces.pop()
        os.kill(os.getpid(), 9)
FolderStore(Path(sys.argv[1])).put("sea", "x", Dying())
"""
    child = subprocess.run([sys.executable, "-c", program, str(store.root)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert keys(store) == []
    (left,) = leftovers(store.root)
    FolderStore(store.root).put("sea", "y", b"")
    assert left.exists()  # another process may still be writing it
    os.utime(left, (0, 0))
    FolderStore(store.root).put("sea", "y", b"")
    assert leftovers(store.root) == []


def test_an_object_is_there_for_everybody_as_soon_as_put_returns(store: FolderStore, sea: Path) -> None:
    """A child that is forked meanwhile holds our descriptor for a moment, like a writer."""
    done = threading.Event()

    def fork() -> None:
        while not done.is_set():
            subprocess.run(["true"], check=True, preexec_fn=lambda: time.sleep(0.003))

    forking = threading.Thread(target=fork)
    forking.start()
    try:
        for number in range(150):
            store.put("sea", f"{number}", bytes(1000))
            assert store.is_complete("sea", f"{number}")
    finally:
        done.set()
        forking.join()


# Whether a file is written


@pytest.fixture
def written(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "x").write_bytes(b"x")
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_where_leases_tell_nothing_a_file_must_be_quiet(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(tmp_path / "x", (0, 0))  # as cp -p does at its end
    assert not is_whole(written, trusted=False)
    monkeypatch.setattr(complete, "QUIET_S", 0.3)
    while not is_whole(written, trusted=False):
        time.sleep(0.05)
    with (tmp_path / "x").open("ab") as file:
        file.write(b"more")
    assert not is_whole(written, trusted=False)


def test_a_folder_of_proc_is_not_trusted_with_leases() -> None:
    assert not leased(Path("/proc"))


def test_asking_does_not_disturb_whoever_opens_the_file(tmp_path: Path, sea: Path) -> None:
    """Without F_SETSIG the kernel would end the asking process with SIGIO."""
    program = """
import os, sys
from buoy.store.complete import is_whole
fd = os.open(sys.argv[1], os.O_RDONLY)
print("asking", flush=True)
while os.path.exists(sys.argv[1]):
    is_whole(fd, trusted=True)
"""
    path = tmp_path / "x"
    path.write_bytes(b"")
    asking = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "asking\n"
    for _ in range(20_000):
        with path.open("ab"):
            pass
    assert asking.poll() is None
    path.unlink()
    assert asking.wait() == 0
    asking.stdout.close()
