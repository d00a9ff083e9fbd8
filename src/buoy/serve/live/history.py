"""What a stream has seen so far: its gaps, its time series, how far it has come; kept over a restart in a folder."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from buoy.errors import UsageError
from buoy.serve.live.bookmark import Bookmark, Saved, digest
from buoy.serve.live.clock import now
from buoy.serve.live.kept import write_whole
from buoy.streams.series import Series
from buoy.streams.spec import StreamSpec

__all__ = ["Gap", "History"]

_log = logging.getLogger("buoy.serve.live")

#: The latest of them; a camera that fails every minute fills this in a week.
_MOST_GAPS = 10_000
_NOT_RUNNING = "the service was not running"


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A time without frames: nothing is known of it, least of all that there were no animals."""

    begin: str
    #: Not yet over while this is absent.
    end: str | None = None
    reason: str


class _Memory(msgspec.Struct, kw_only=True):
    #: Up to when all is known: at the latest save, whether there were frames or a gap.
    saved: str
    gaps: list[Gap]
    open: Gap | None = None
    series: msgspec.Raw = msgspec.Raw()
    bookmark: Saved | None = None


class History:
    """The gaps of one stream, its counts by minute, and how far it has come.

    A stream that goes on in the middle of a folder or video, and is configured otherwise now, begins anew: what was
    kept is set aside, since what it looks at again would count twice.

    Args:
        spec: the stream.
        path: where it is kept; nothing is kept without.
    """

    def __init__(self, spec: StreamSpec, path: Path | None) -> None:
        self._spec = spec
        self._path = path
        self._writing = threading.Lock()
        self.series = Series(spec, ())
        self._gaps: deque[Gap] = deque(maxlen=_MOST_GAPS)
        self.open: Gap | None = None
        self.bookmark = Bookmark()
        #: Whether there is something that has not been saved.
        self.fresh = False
        if path is not None and path.exists():
            self._load(path)

    @property
    def gaps(self) -> Sequence[Gap]:
        """All that are known, the one that goes on as the last."""
        return [*self._gaps, *([self.open] if self.open else [])]

    def name(self, labels: Sequence[str]) -> None:
        """The labels that the model looks for are known: each gets rows, also while none has been found."""
        known = self.series.save()
        self.series = Series(self._spec, labels)
        self.series.load(known)

    def see(self, record: bytes, crossings: dict[str, Any]) -> None:
        """A frame was looked at."""
        self.series.frame(record, crossings)

    def begin(self, reason: str, since: str) -> Gap | None:
        """Frames have stopped; gives the gap if it is a new one."""
        if self.open is not None:
            return None
        self.open = Gap(begin=since, reason=reason)
        self.series.gap(since, None, reason)
        self.fresh = True
        return self.open

    def end(self, moment: str) -> Gap | None:
        """Frames come again; gives the gap that is over, if there was one."""
        if self.open is None:
            return None
        end = max(moment, self.open.begin)
        gap = Gap(begin=self.open.begin, end=end, reason=self.open.reason)
        self._gaps.append(gap)
        self.series.gap(gap.begin, end, gap.reason)
        self.open = None
        self.fresh = True
        return gap

    def document(self) -> bytes:
        """All of it, to be written by `write`."""
        self.fresh = False
        series = msgspec.Raw(self.series.save())
        bookmark = self.bookmark.save(self._spec)
        memory = _Memory(saved=now(), gaps=list(self._gaps), open=self.open, series=series, bookmark=bookmark)
        return msgspec.json.encode(memory)

    def write(self, document: bytes) -> None:
        """Keep it; may be called in a thread.

        Raises:
            StoreError: it cannot be written.
        """
        with self._writing:
            if self._path is not None:
                write_whole(self._path, document)

    def forget(self) -> None:
        """The stream is gone for good; one that is made under its name begins anew."""
        with self._writing:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
                _before(self._path).unlink(missing_ok=True)
            self._path = None  # a save that is under way comes too late

    def _load(self, path: Path) -> None:
        try:
            memory = msgspec.json.decode(path.read_bytes(), type=_Memory)
            if memory.bookmark and memory.bookmark.spec != digest(self._spec):
                _log.info("configured otherwise, begins anew", extra={"fields": {"stream": self._spec.name}})
                path.replace(_before(path))
                return
            if bytes(memory.series):
                self.series.load(bytes(memory.series))
        except (OSError, msgspec.MsgspecError, UsageError) as error:
            _log.error("this history cannot be read, a new one begins", extra={"fields": {"why": str(error)}})
            path.replace(path.with_name(f"{path.name}.unreadable"))
            return
        self._gaps.extend(memory.gaps)
        self.open = memory.open
        self.bookmark = Bookmark(memory.bookmark)
        # What happened while we did not run is as unknown as what a dead camera would have shown.
        if not self.bookmark.ended:
            self.begin(_NOT_RUNNING, memory.saved)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
