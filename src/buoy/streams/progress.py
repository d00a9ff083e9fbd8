"""How far a stream has come in a source that can be read again, so that it goes on there when it is opened again.

The process of the model tells it with what was looked at, and the service remembers it: what was read and never told is
read again, so a frame counts once however often the process ends. Imports neither decoder nor array.

In messages (`buoy.streams.host`) a picture of a folder is `FILE_BYTES` bytes: a hash of its path, and one of the time
of its last change and its size. Not the highest time so far, since files come in any order of their times.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from buoy.streams.account import Settled

if TYPE_CHECKING:  # the service has no memory for what decodes
    from buoy.streams.frame import Frame

__all__ = ["FILE_BYTES", "Past", "Progress", "Spot", "file_key", "file_version", "files_of"]

_KEY_BYTES, _VERSION_BYTES = 16, 8
FILE_BYTES = _KEY_BYTES + _VERSION_BYTES


class Spot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture of a video file."""

    #: Counted from 0, with those that are damaged.
    number: int
    #: By the video's own clock, in its ticks; `None` where only counting finds it again.
    pts: int | None = None
    #: The file's; under another size or time it is another video.
    size_bytes: int
    changed_ns: int


class Past(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The latest frame that was told."""

    #: As `Frame.number`; -1 before the first.
    number: int = -1
    #: As `Frame.clock_s`.
    clock_s: float | None = None
    #: Of a video.
    spot: Spot | None = None


class Progress:
    """What an opening of a stream begins with, and what it has to tell of its way. Safe from any thread.

    Args:
        past: where the opening before has ended.
        files: the pictures of a folder that are done with, `FILE_BYTES` each.
        settled: how many frames came by now, and of how many the fate is known.
    """

    def __init__(
        self, past: Past | None = None, files: bytes = b"", settled: Callable[[], Settled] = lambda: Settled(0, 0)
    ) -> None:
        self.past = past or Past()
        self._files = files
        self._settled = settled
        self._lock = threading.Lock()
        self._passed: deque[bytes] = deque()
        self._gone: deque[tuple[int, bytes]] = deque()

    def take_files(self) -> dict[bytes, bytes]:
        """Version by key of the files that are done with; once, as there may be a million."""
        files, self._files = self._files, b""
        return dict(files_of(files))

    def passed(self, frame: Frame) -> None:
        """It will not be looked at, and is not to come again."""
        if isinstance(frame.mark, bytes):
            with self._lock:
                self._passed.append(frame.mark)

    def gone(self, file: bytes) -> None:
        """A file is not there any more, so nobody has to remember it; told once what came before is dealt with."""
        with self._lock:
            self._gone.append((self._settled().received, file))

    def news(self, frame: Frame | None = None) -> dict[str, Any]:
        """What the head of the next message says of it.

        Args:
            frame: that the message is about.
        """
        with self._lock:
            passed, done = list(self._passed), self._settled().done
            self._passed.clear()
            gone = []
            while self._gone and self._gone[0][0] <= done:
                gone.append(self._gone.popleft()[1])
        head: dict[str, Any] = {}
        if frame and frame.mark is not None:
            spot = None if isinstance(frame.mark, bytes) else frame.mark
            head["past"] = msgspec.to_builtins(Past(number=frame.number, clock_s=frame.clock_s, spot=spot))
            passed += [frame.mark] if isinstance(frame.mark, bytes) else []
        if passed:
            head["passed"] = b"".join(passed).hex()
        if gone:
            head["gone"] = b"".join(gone).hex()
        return head


def files_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and version of each file in a message."""
    for at in range(0, len(data) - FILE_BYTES + 1, FILE_BYTES):
        yield data[at : at + _KEY_BYTES], data[at + _KEY_BYTES : at + FILE_BYTES]


def file_key(path: bytes) -> bytes:
    """Stands for a path."""
    return hashlib.blake2b(path, digest_size=_KEY_BYTES).digest()


def file_version(changed_ns: int, size_bytes: int) -> bytes:
    """Stands for the content of a file. Without its inode, which some network file systems give anew at each mount."""
    return hashlib.blake2b(b"%d %d" % (changed_ns, size_bytes), digest_size=_VERSION_BYTES).digest()
