"""Records go into a bucket, by stream and hour.

    <to>/<stream>/<YYYY-MM-DD>/<HH>-<MMSS>-<id>.jsonl | .csv | .parquet

The hour is that of the capture, UTC; an hour has one file or several, which sort in time. A record is on the local
disk (`spool.py`) a moment after it came; a part goes to the bucket every ten minutes, when its hour is over, and when
the stream ends. One thread writes to the disk, another sends, so that a store that hangs holds up nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from buoy.errors import JobError, StoreError, as_buoy_error
from buoy.serve.live.sinks.bounded import Bounded, Entry
from buoy.serve.live.sinks.destination import open_destination
from buoy.serve.live.sinks.forms import check_form, made
from buoy.serve.live.sinks.health import Health
from buoy.serve.live.sinks.left import remember
from buoy.serve.live.sinks.limits import Limits
from buoy.serve.live.sinks.seen import Frame, Gap
from buoy.serve.live.sinks.spool import Spool, sealed, taken
from buoy.store.local import told
from buoy.streams.spec import Sink, StreamSpec

__all__ = ["Bucket"]

_log = logging.getLogger("buoy.serve.sinks")

#: How often the spool is looked at for parts of which nobody told us, as those of a process that died.
_LOOK_S = 30.0
#: How long a disk that was full must take everything before it counts as well again.
_STEADY_S = 2.0


class _Line(NamedTuple):
    captured: str
    data: bytes


class Bucket:
    """Spools records, and sends the parts.

    Args:
        sink: where to, in which format.
        spec: of the stream.
        data: the service's folder; a temporary one without.
        limits: of memory, disk and time.

    Raises:
        UsageError: `to` or `format` cannot be used.
    """

    def __init__(self, sink: Sink, spec: StreamSpec, data: Path | None, limits: Limits) -> None:
        self.kind = "bucket"
        self._sink = sink
        self._spec = spec
        self._destination = open_destination(sink.to)
        check_form(sink.format)
        self._folder = _spool_folder(sink, spec, data)
        self._temporary = data is None
        self._spool = Spool(
            self._folder,
            part_s=limits.part_s,
            part_bytes=limits.part_bytes,
            most_bytes=limits.spool_bytes,
            begun=lambda folder: remember(folder, sink, spec),
        )
        self._loss = _Loss(spec.name)
        self._queue: Bounded[_Line] = Bounded(limits.queue_s, limits.queue_bytes, lost=self._loss.add)
        self._counts = Counter(written=0, parts=0, unreadable=0)
        what = {"stream": spec.name, "sink": "bucket", "to": sink.to}
        self._disk = Health({**what, "part": "spool"}, longest_s=5.0, steady_s=_STEADY_S)
        self._store = Health({**what, "part": "store"}, longest_s=60.0)
        self._deadline_s = float("inf")
        self._closing = threading.Event()
        self._spooled = threading.Event()
        self._due = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, name=f"spool of {spec.name}", daemon=True),
            threading.Thread(target=self._send, name=f"bucket of {spec.name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # For the caller

    def frame(self, frame: Frame) -> dict[str, Any] | None:
        """One more record; never waits."""
        self._put(frame.captured, msgspec.json.format(frame.record, indent=-1))
        return None

    def gap(self, gap: Gap) -> None:
        """There were no frames."""
        self._put(gap.begin, msgspec.json.encode(gap))

    def _put(self, captured: str, line: bytes) -> None:
        self._queue.put(_Line(captured, line + b"\n"), len(line) + 200)

    def status(self) -> dict[str, Any]:
        """For the API and the metrics."""
        health = self._disk if self._disk.error else self._store
        waiting = len(self._queue)
        return {
            "kind": self.kind,
            "to": self._sink.to,
            "format": self._sink.format,
            "state": "failing" if health.error else "ok",
            "since": health.since,
            "error": health.error,
            "written": self._counts["written"],
            "dropped": dict(self._queue.dropped),
            "waiting": waiting,
            "parts": self._counts["parts"],
            "unreadable": self._counts["unreadable"],
            "spooled_bytes": self._spool.kept_bytes,
            "spool": str(self._folder),
        }

    def begin_close(self, deadline_s: float) -> None:
        """Write and send what waits, until this monotonic time."""
        self._deadline_s = deadline_s
        self._closing.set()
        self._queue.close()
        self._due.set()

    def join(self, deadline_s: float) -> bool:
        """Wait for it; tells whether everything is in the bucket."""
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        left = len(sealed(self._folder))
        if left:
            fields = {"stream": self._spec.name, "to": self._sink.to, "parts": left, "spool": str(self._folder)}
            _log.warning("a sink ends with parts that were not sent", extra={"fields": fields})
        elif self._temporary and ended:
            shutil.rmtree(self._folder, ignore_errors=True)
        return ended and not left

    # The thread that writes to the disk

    def _write(self) -> None:
        while True:
            closing = self._closing.is_set()
            entries = self._queue.take(1.0)
            rest: Sequence[Entry[_Line]] = entries
            try:
                wrote = self._write_loss() or bool(rest)
                while rest:
                    rest = self._append(rest)
                self._close_due()
                self._disk.worked() if wrote else self._disk.settle()
            except Exception as error:
                self._queue.give_back(rest)
                with suppress(StoreError):  # what can be sent makes room
                    self._close_due()
                wait_s = self._disk.failed(as_buoy_error(error, str(self._folder)))
                if self._closing.is_set() and time.monotonic() + wait_s > self._deadline_s:
                    self._queue.drop("closed")
                    break
                _pause(wait_s, self._closing)
                continue
            if closing and not entries:
                break
        self._spool.close()
        self._spooled.set()
        self._due.set()

    def _close_due(self) -> None:
        if self._spool.tick():
            self._due.set()

    def _append(self, entries: Sequence[Entry[_Line]]) -> Sequence[Entry[_Line]]:
        """Write those that belong to the hour of the first; gives the rest."""
        first = entries[0].item.captured
        count = next((at for at, entry in enumerate(entries) if entry.item.captured[:13] != first[:13]), len(entries))
        self._spool.append(first, b"".join(entry.item.data for entry in entries[:count]))
        self._counts["written"] += count
        return entries[count:]

    def _write_loss(self) -> bool:
        """Say in the data that some of it was lost, if it was."""
        if gap := self._loss.take():
            try:
                self._spool.append(gap.begin, msgspec.json.encode(gap) + b"\n")
            except BaseException:
                self._loss.give_back(gap)
                raise
        return gap is not None

    # The thread that sends

    def _send(self) -> None:
        while True:
            last = self._spooled.is_set()
            try:
                for part in sealed(self._folder):
                    self._send_part(part)
                    if time.monotonic() > self._deadline_s:
                        break
            except Exception as error:
                wait_s = self._store.failed(as_buoy_error(error, self._sink.to))
                if time.monotonic() + wait_s > self._deadline_s:
                    break
                _pause(wait_s, self._closing)
                continue
            if last or time.monotonic() > self._deadline_s:
                break
            self._due.wait(_LOOK_S)
            self._due.clear()
        self._destination.close()

    def _send_part(self, part: Path) -> None:
        """Send a part, and remove it; nothing if it is being written, or another has sent it."""
        with taken(part) as ours:
            if not ours:
                return
            day, _, name = part.name.removesuffix(".jsonl").partition("_")
            key = f"{self._spec.name}/{day}/{name}.{self._sink.format}"
            try:
                with made(part, self._sink.format, self._spec) as file:
                    self._destination.put(key, file.content)
                    if file.unreadable:
                        self._keep(part, f"{file.unreadable} lines cannot be read")
            except JobError as error:  # a part of which no table can be made holds up no other
                self._keep(part, error.message)
            else:
                self._counts["parts"] += 1
                self._store.worked()
            with told(part):
                part.unlink()

    def _keep(self, part: Path, why: str) -> None:
        """Leave a part that is not completely in the bucket where a person finds it."""
        self._counts["unreadable"] += 1
        kept = part.with_name(f".{part.name}.unreadable")
        with told(kept), suppress(FileExistsError):
            os.link(part, kept)
        _log.error("a part is kept aside", extra={"fields": {"stream": self._spec.name, "why": why, "kept": str(kept)}})


class _Loss:
    """What was dropped between two records that were written."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._gap: Gap | None = None

    def add(self, line: _Line, reason: str) -> None:
        self.give_back(
            Gap(stream=self._stream, begin=line.captured, end=line.captured, reason=f"sink: {reason}", dropped=1)
        )

    def take(self) -> Gap | None:
        with self._lock:
            gap, self._gap = self._gap, None
            return gap

    def give_back(self, gap: Gap) -> None:
        with self._lock:
            if self._gap:
                begin, end = min(self._gap.begin, gap.begin), max(self._gap.end, gap.end)
                dropped = self._gap.dropped + gap.dropped
                gap = Gap(stream=self._stream, begin=begin, end=end, reason=self._gap.reason, dropped=dropped)
            self._gap = gap


def _pause(wait_s: float, closing: threading.Event) -> None:
    """Wait, but not for long when it is about to end."""
    if closing.is_set():
        time.sleep(min(wait_s, 0.2))
    else:
        closing.wait(wait_s)


def _spool_folder(sink: Sink, spec: StreamSpec, data: Path | None) -> Path:
    """Where the parts of this sink wait: the same after a restart, another one for another sink."""
    if data is None:
        return Path(tempfile.mkdtemp(prefix="buoy-spool-"))
    mark = hashlib.sha256(f"{sink.to}\n{sink.format}".encode()).hexdigest()[:12]
    return data.absolute() / "spool" / spec.name / mark
