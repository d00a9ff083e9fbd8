"""Works on rows of the manifest: fetches ahead, feeds the child with the model, and finds what it dies of."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from buoy.batch.fetch import Ahead, Content, Opened
from buoy.batch.isolate import Child, Event, load_error
from buoy.batch.manifest import Row
from buoy.batch.pilot import Done
from buoy.batch.rows import Liner
from buoy.errors import BuoyError, JobError
from buoy.results import Failure, InputInfo, ModelInfo, Record, decode_record

__all__ = ["ItemRunner"]

_TICK_S = 0.5
#: When a pilot is stopped, what it has begun gets so long.
_STOP_S = 12.0
#: What is on its way to the child beyond one item for each lane.
_SENT_BYTES = 64 << 20
#: So many children in a row that end before they have loaded the model are too many.
_STARTS = 3


class _Item:
    """One picture or video on its way."""

    def __init__(self, opened: Opened, name: str, content: bytes | Path) -> None:
        self.opened, self.name, self.content = opened, name, content
        self.began_s: float | None = None
        self.alone = False
        #: Why its child had to be ended.
        self.fault = ""
        #: Frames of a video.
        self.records: list[tuple[str, Record]] = []


class _Object:
    """One row on its way: its records by the order of its items, and how many are missing."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.records: dict[str, list[tuple[str, Record]]] = {}
        self.missing = 0
        self._begun = False
        self._following: tuple[str, Content] | None = None

    @property
    def done(self) -> bool:
        """Whether all its items are there, with their records."""
        return self._begun and self._following is None and not self.missing

    def take(self) -> tuple[str, Content] | None:
        """The next of its items; the one after that is looked for, so that the last is known to be it.

        Before the first is taken none is read: many objects may be waiting, each with a picture of any size.
        """
        if not self._begun:
            self._begun, self._following = True, next(self.opened.items, None)
        found = self._following
        if found is not None:
            self._following = next(self.opened.items, None)
            self.records[found[0]] = []
            self.missing += 1
        return found


class ItemRunner:
    """See the module; the `Runner` of real pilots.

    Args:
        ahead: fetches the objects.
        liner: makes the rows of the table.
        model: folder of the model.
        info: the model, for the records of what killed its process.
        cores: see `Engine.open`.
        timeout_s: what takes longer is a failed item; a video gets it for each frame.
        every_s: of a video a frame is looked at every so often.
        most_bytes: memory of the child; what makes it take more is a failed item.
    """

    def __init__(
        self, ahead: Ahead, liner: Liner, model: Path, info: ModelInfo, *, cores: int | None, timeout_s: float,
        every_s: float, most_bytes: int,
    ) -> None:  # fmt: skip
        self._ahead, self._liner = ahead, liner
        self._model, self._info, self._cores = model, info, cores
        self._timeout_s, self._every_s = timeout_s, every_s
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._child: Child | None = None
        self._starts = 0
        self._ids = 0
        self._sent: dict[int, _Item] = {}
        self._suspects: deque[_Item] = deque()
        self._back: deque[_Item] = deque()
        self._objects: dict[int, _Object] = {}
        self._opening: deque[_Object] = deque()
        self._whole: list[_Object] = []
        #: Whether the next object that comes from the store is waited for.
        self._starving = True
        self._most_bytes = most_bytes
        self._weighed_s = 0.0

    def start(self) -> None:
        """Have the model loaded while the pilot still looks for work."""
        self._child = Child(self._model, self._cores, self._events)

    def run(self, rows: Sequence[Row], stopping: Callable[[], bool]) -> Iterator[Done | None]:
        """Work on rows, in any order, and see `Runner`."""
        todo = deque(rows)
        stopped_s: float | None = None
        try:
            while todo or self._ahead.waiting or self._objects:
                if stopped_s is None and stopping():
                    stopped_s = time.monotonic()
                if stopped_s is None:
                    self._starving = True
                    self._ahead.ask(todo, self._came)
                    yield from self._receive()
                if (stopped_s is not None) and self._idle(stopped_s):
                    return
                self._feed(stopped_s is None)
                self._starving = not self._opening
                yield from self._finished()
                if not (todo or self._ahead.waiting or self._objects):
                    return
                self._wait()
                yield None
                yield from self._finished()
        finally:
            self._clear()

    def killer(self, row: Row) -> Done:
        """The failed row of an object that three pilots did not survive."""
        error = JobError(f"{row.key}: three workers in a row ended while they looked at it", "look at it by hand")
        return self._liner.without(row, "failed", error)

    def hurry(self, seconds: float) -> None:
        """Wait no longer than that for a source that fails. For signal handlers."""
        self._ahead.hurry(seconds)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None
        self._ahead.close()

    def _idle(self, stopped_s: float) -> bool:
        """Whether nothing is on its way any more, or has been for too long."""
        late = time.monotonic() - stopped_s > _STOP_S
        return late or not (self._sent or self._suspects)

    def _came(self) -> None:
        """An object is there; called by the thread that fetched it."""
        if self._starving:  # else it is seen in time, and waking up costs each picture a hundredth of it
            self._events.put(None)

    def _receive(self) -> Iterator[Done]:
        """Take what the store gave."""
        while (opened := self._ahead.next()) is not None:
            if opened.fate:
                self._ahead.release(opened)
                yield self._liner.without(opened.row, opened.fate)
                continue
            fresh = _Object(opened)
            self._objects[opened.row.row] = fresh
            self._opening.append(fresh)

    def _feed(self, more: bool) -> None:
        """Give the child as much as it needs to be busy; an input under suspicion goes alone."""
        child = self._child
        if child is None:
            if more or self._suspects:
                self.start()
            return
        if not child.lanes:
            return
        if self._suspects:
            if not self._sent:
                suspect = self._suspects.popleft()
                suspect.alone = True
                self._send(child, suspect)
            return
        while more and self._has_room(child) and (item := self._next_item()) is not None:
            self._send(child, item)

    def _has_room(self, child: Child) -> bool:
        """Whether another item may be on its way: each lane has one, and of small ones each another behind it."""
        if len(self._sent) < child.lanes:
            return True
        size_bytes = sum(len(each.content) for each in self._sent.values() if isinstance(each.content, bytes))
        return len(self._sent) < child.lanes * 2 + 1 and size_bytes < _SENT_BYTES

    def _next_item(self) -> _Item | None:
        if self._back:
            return self._back.popleft()
        while self._opening:
            found = self._opening[0].take()
            if found is None:
                self._see(self._opening.popleft())
                continue
            item = self._item(self._opening[0].opened, *found)
            if item is not None:
                return item
        return None

    def _item(self, opened: Opened, name: str, content: Content) -> _Item | None:
        if not isinstance(content, BuoyError):
            return _Item(opened, name, content)
        self._fail(_Item(opened, name, b""), content)
        return None

    def _send(self, child: Child, item: _Item) -> None:
        self._ids += 1
        self._sent[self._ids] = item
        item.began_s = None
        head = {"id": self._ids, "name": _full_name(item)}
        if isinstance(item.content, Path):
            item.records.clear()
            child.send({**head, "every_s": self._every_s}, str(item.content).encode())
        else:
            child.send(head, item.content)

    def _wait(self) -> None:
        """Wait until something happens, and take all that did; end a child that hangs."""
        try:
            self._handle(self._events.get(timeout=_TICK_S))
            while True:
                self._handle(self._events.get_nowait())
        except Empty:
            pass
        if self._child is not None and self._child.lanes:
            self._guard(self._child, time.monotonic())

    def _guard(self, child: Child, now_s: float) -> None:
        """End a child that hangs or outgrows its memory."""
        working = list(self._sent.values())[: child.lanes]
        for item in working:
            item.began_s = item.began_s or now_s
            if now_s - item.began_s > self._timeout_s and not item.fault:
                item.fault = f"took longer than {self._timeout_s:g} s"
                child.kill()
        if now_s - self._weighed_s > _TICK_S:
            self._weighed_s = now_s
            if child.rss_bytes > self._most_bytes:
                for item in working:
                    item.fault = item.fault or "took more memory than there is for it"
                child.kill()

    def _handle(self, event: Event | None) -> None:
        if event is None or event.child is not self._child:
            return
        if event.kind == "ready":
            if not event.head["ready"]:
                raise load_error(event.head)
            self._starts = 0
        elif event.kind == "reply":
            self._reply(event)
        else:
            self._ended(event.child)

    def _reply(self, event: Event) -> None:
        item = self._sent.get(event.head["id"])
        if item is None:
            return
        video = isinstance(item.content, Path)
        if not event.head.get("end"):
            item.records.append((item.name or event.head["item"], decode_record(event.body)))
            item.began_s = time.monotonic() if video else item.began_s
        if event.head.get("end") or not video:
            del self._sent[event.head["id"]]
            self._take(item)

    def _ended(self, child: Child) -> None:
        """Sort out what the child has left behind."""
        self._child = None
        how = child.how()
        child.close()
        if not child.lanes:
            self._starts += 1
            if self._starts >= _STARTS:
                raise JobError(f"the process with the model {how} before it was ready", "run: buoy check MODEL")
        left, self._sent = list(self._sent.values()), {}
        for number, item in enumerate(left):
            if item.alone:
                fault = item.fault or f"the process that looked at it {how}"
                self._fail(item, JobError(f"{_full_name(item)}: {fault}, twice", "look at it by hand"))
            elif number < max(1, child.lanes):
                self._suspects.append(item)
            else:
                self._back.append(item)
        for item in self._suspects:
            item.fault = ""

    def _fail(self, item: _Item, error: BuoyError) -> None:
        size_bytes = len(item.content) if isinstance(item.content, bytes) else item.content.stat().st_size
        info = InputInfo(name=_full_name(item), size_bytes=size_bytes, sha256="")
        item.records = [(item.name, Failure.of(error, info, self._info))]
        self._take(item)

    def _take(self, item: _Item) -> None:
        whole = self._objects[item.opened.row.row]
        whole.records[item.name] = item.records
        whole.missing -= 1
        self._see(whole)

    def _see(self, whole: _Object) -> None:
        """Note an object of which nothing is missing; it may be seen twice."""
        if whole.done and self._objects.pop(whole.opened.row.row, None) is not None:
            self._whole.append(whole)

    def _finished(self) -> Iterator[Done]:
        """Objects of which nothing is missing."""
        while self._whole:
            whole = self._whole.pop()
            self._ahead.release(whole.opened)
            records = [record for each in whole.records.values() for record in each]
            yield self._liner.done(whole.opened.row, records)

    def _clear(self) -> None:
        """Forget a cell: what is still on its way would be in the way of the next one."""
        if self._child is not None and (self._sent or self._child.rss_bytes > self._most_bytes):
            self._child.close()
            self._child = None
        for whole in (*self._objects.values(), *self._whole):
            self._ahead.release(whole.opened)
        self._ahead.drop()
        for things in (self._sent, self._suspects, self._back, self._objects, self._opening, self._whole):
            things.clear()


def _full_name(item: _Item) -> str:
    key = item.opened.row.key
    return f"{key}/{item.name}" if item.name else key
