"""All streams of the service: made, told to the models' processes, followed, kept, and ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from buoy.errors import StoreError, UsageError
from buoy.serve.live import gauges
from buoy.serve.live.clock import now
from buoy.serve.live.history import History
from buoy.serve.live.kept import Kept
from buoy.serve.live.stream import Origin, Stream, open_sinks
from buoy.serve.live.viewing import Viewers
from buoy.serve.metrics import Metrics
from buoy.serve.refusals import Conflict, NotReady, Unknown
from buoy.serve.remote import Looker
from buoy.streams.spec import StreamSpec

if TYPE_CHECKING:
    from buoy.serve.live.sinks import Sinks

__all__ = ["Registry"]

_log = logging.getLogger("buoy.serve.live")

#: Streams at once.
_MOST = 64
#: For a stream to end when asked to, and for its sinks to send what waits.
_SHUT_S, _SINKS_S = 5.0, 10.0
#: Viewers that have not left so long after their stream are cut off.
_LEAVE_S = 2.0
#: Between two saves; what was seen since the latest is lost with the machine, and is a gap then. Of a folder or
#: video it is seen again.
_SAVE_S = 30.0
_ENDED = "it had ended before the service was started again"


class Registry:
    """The streams, by name. It listens to the models' processes, and opens the streams again in each new one.

    Args:
        lookers: the models.
        metrics: which show the streams' numbers.
        data: where streams that were made over the API are kept; without it they end with the service.
        configured: the operator's streams.

    Raises:
        UsageError: a configured stream names a model that is not here, or has a sink that cannot be used; or what is
            kept cannot be read.
    """

    def __init__(
        self, lookers: Sequence[Looker], metrics: Metrics, data: Path | None, configured: Sequence[StreamSpec] = ()
    ) -> None:
        self.viewers = Viewers()
        self._lookers = lookers
        self._data = data
        self._kept = Kept(data)
        self._streams: dict[str, Stream] = {}
        self._tending: asyncio.Task[None] | None = None
        self._closing = False
        self._told_of_disk = False
        for spec in configured:
            self._make(spec, "file")
        #: Kept ones that cannot be made now, as their model is not served: they stay kept.
        self._unusable: list[tuple[StreamSpec, bool]] = []
        for spec, ended in self._kept.load():
            self._restore(spec, ended)
        self._left = self._open_left()
        metrics.more.append(lambda: gauges.of(self))

    # What the routes ask

    @property
    def keeps(self) -> bool:
        """Whether streams that are made over the API outlive the service."""
        return self._data is not None

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def find(self, name: str) -> Stream:
        """The stream of that name.

        Raises:
            Unknown: there is none.
        """
        found = self._streams.get(name)
        if found is None:
            names = ", ".join(self._streams) or "none; make one with POST /streams"
            raise Unknown(f"there is no stream {name[:60]!r} here", f"streams here: {names}")
        return found

    async def add(self, spec: StreamSpec) -> Stream:
        """Make a stream, and begin to look.

        Raises:
            Conflict: there is one of that name, or there are too many.
            UsageError: there is no such model, or a sink cannot be used.
            StoreError: it cannot be kept.
        """
        if self._closing:
            raise NotReady("the service is about to end", "send it again: another instance may take it")
        if spec.name in self._streams:
            raise Conflict(f"there is a stream {spec.name} already", "give it another name, or delete that one first")
        if len(self._streams) >= _MOST:
            raise Conflict(f"there are {_MOST} streams, which is the most", "delete one that is not needed")
        stream = self._make(spec, "api")
        try:
            self._keep()
        except StoreError:
            await self._end(stream)
            raise
        if stream.looker.ready and not stream.over:
            stream.history.name(stream.looker.about["model"]["labels"])
            self._open(stream)
        return stream

    async def remove(self, name: str) -> None:
        """End a stream, and forget it.

        Raises:
            Unknown: there is none.
            Conflict: it stands in the operator's file.
        """
        stream = self.find(name)
        if stream.origin == "file":
            raise Conflict(f"the stream {name} stands in the operator's file", "take it out there, and start again")
        await self._shut([stream])
        stream.removed()
        await self._end(stream)
        stream.history.forget()
        self._keep()

    @contextmanager
    def watching(self, stream: Stream, width: int) -> Iterator[None]:
        """Pictures are wanted for as long as this lasts, at most so wide."""
        stream.widths[width] += 1
        self._watch(stream)
        try:
            yield
        finally:
            stream.widths[width] -= 1
            stream.widths += type(stream.widths)()  # drops what is zero
            self._watch(stream)

    # What the models' processes tell

    def start(self) -> None:
        """Begin to listen, if that has not been done; needs a running loop."""
        if self._tending:
            return
        self._tending = asyncio.create_task(self._tend())
        for looker in self._lookers:
            looker.listener = self
            if looker.ready:
                self.worker_ready(looker)

    def event(self, head: dict[str, Any], body: bytes) -> None:
        """Something happened in a stream; see `buoy.streams.host`."""
        stream = self._streams.get(head["stream"])
        # What comes after its sinks were closed counts nowhere: it is looked at again when the stream is opened again.
        if stream is None or stream.gone.is_set():
            return
        try:
            self._take(stream, head, body)
        except Exception:
            _log.exception("fault", extra={"fields": {"stream": stream.spec.name, "event": head.get("event")}})

    def worker_ready(self, looker: Looker) -> None:
        """Open this model's streams in its new process."""
        if self._closing:
            return
        for stream in self:
            if stream.looker is looker and not stream.over:
                stream.history.name(looker.about["model"]["labels"])
                self._open(stream)

    def worker_lost(self, looker: Looker, how: str) -> None:
        """The process is gone, and its streams with it."""
        for stream in self:
            if stream.looker is looker and not stream.over:
                stream.lost(f"the process that looks at it ended: {how}", now())

    async def close(self) -> None:
        """End every stream, send and save what there is, and let the viewers go."""
        self._closing = True
        if self._tending:
            self._tending.cancel()
            with suppress(asyncio.CancelledError):
                await self._tending
        await self._shut(list(self))
        for stream in self:
            stream.end()
        await asyncio.gather(self.viewers.end(_LEAVE_S), *(self._close_sinks(stream) for stream in self))
        await asyncio.gather(*(asyncio.to_thread(sinks.close, _SINKS_S) for sinks in self._left))
        await self._save(everything=True)

    def _take(self, stream: Stream, head: dict[str, Any], body: bytes) -> None:
        stream.history.bookmark.reach(head)
        if counts := head.get("counts"):
            stream.totals.reach(counts)
        if head["event"] == "frame":
            at = len(body) - head["jpeg_bytes"]
            stream.said_frame(head, body[:at], body[at:])
            stream.history.see(body[:at], head.get("crossings", {}))
        elif head["event"] == "state":
            fields = {"stream": stream.spec.name, "state": head["state"]}
            stream.said_state(head["state"], head.get("reason", ""), head["since"])
            _log.info("stream", extra={"fields": {**fields, "reason": stream.reason}})
            if head["state"] == "ended":
                stream.totals.close()
                if not stream.shutting:
                    self._keep_if_possible()
                    self._remember_end(stream.history)
        else:
            stream.said_counts()

    def _make(self, spec: StreamSpec, origin: Origin) -> Stream:
        history = History(spec, self._data / "history" / f"{spec.name}.json" if self._data else None)
        stream = Stream(spec, origin, self._looker(spec), history, open_sinks(spec, self._data))
        self._streams[spec.name] = stream
        if history.bookmark.ended:
            stream.said_state("ended", _ENDED, now())
        return stream

    def _open_left(self) -> list[Sinks]:
        """Sinks that send what streams of another time have left in our folder."""
        if self._data is None or not (self._data / "spool").is_dir():
            return []
        from buoy.serve.live.sinks.left import open_left

        return open_left(self._data, [stream.spec for stream in self])

    def _restore(self, spec: StreamSpec, ended: bool) -> None:
        try:
            if spec.name in self._streams:
                raise UsageError(f"the operator's file has a stream {spec.name} too", "rename one of them")
            stream = self._make(spec, "api")
        except UsageError as error:
            self._unusable.append((spec, ended))
            _log.error("a kept stream cannot begin", extra={"fields": {"stream": spec.name, **error.record()}})
            return
        if ended and not stream.over:
            stream.said_state("ended", _ENDED, now())

    def _looker(self, spec: StreamSpec) -> Looker:
        names = ", ".join(looker.name for looker in self._lookers)
        if not spec.model and len(self._lookers) > 1:
            raise UsageError(f"{spec.name}: several models are served here", f"name one as its model: {names}")
        for looker in self._lookers:
            if spec.model in ("", looker.name):
                return looker
        raise UsageError(f"{spec.name}: there is no model {spec.model[:60]!r} here", f"models here: {names}")

    def _open(self, stream: Stream) -> None:
        stream.watched = _width(stream)
        spec = msgspec.to_builtins(stream.spec)
        past, files = stream.history.bookmark.opening()
        head = {"op": "open", "stream": stream.spec.name, "spec": spec, "width": stream.watched}
        stream.looker.tell(head | past, files)

    def _watch(self, stream: Stream) -> None:
        wanted = _width(stream)
        if wanted != stream.watched:
            stream.watched = wanted
            stream.looker.tell({"op": "watch", "stream": stream.spec.name, "width": wanted})
            if not wanted:
                stream.pictures.forget()  # it would be an old one to whoever comes next

    async def _shut(self, streams: Sequence[Stream]) -> None:
        for stream in streams:
            stream.shutting = True
            if not stream.over:
                stream.looker.tell({"op": "shut", "stream": stream.spec.name})
        for _ in range(int(_SHUT_S / 0.02)):
            if all(stream.over or not stream.looker.ready for stream in streams):
                return
            await asyncio.sleep(0.02)

    async def _end(self, stream: Stream) -> None:
        self._streams.pop(stream.spec.name, None)
        stream.end()
        await self._close_sinks(stream)

    async def _close_sinks(self, stream: Stream) -> None:
        if stream.sinks:
            await asyncio.to_thread(stream.sinks.close, _SINKS_S)

    async def _tend(self) -> None:
        """See to alerts every second, and to the disk now and then."""
        while True:
            for _ in range(round(_SAVE_S)):
                await asyncio.sleep(1.0)
                for stream in self:
                    stream.see_alerts()
            await self._save()

    def _keep(self) -> None:
        made = [(stream.spec, stream.ended) for stream in self if stream.origin == "api"]
        waiting = [each for each in self._unusable if each[0].name not in self._streams]
        self._kept.save([*waiting, *made])

    def _keep_if_possible(self) -> None:
        with suppress(StoreError):
            self._keep()

    def _remember_end(self, history: History) -> None:
        if not history.bookmark.end():
            return
        with suppress(StoreError):  # the next save tells
            history.write(history.document())
        history.fresh = True  # a save that is under way may put an older one in its place

    async def _save(self, *, everything: bool = False) -> None:
        if self._data is None:
            return
        for stream in list(self):
            if stream.over and not everything and not stream.history.fresh:
                continue
            try:
                await asyncio.to_thread(stream.history.write, stream.history.document())
                self._told_of_disk = False
            except StoreError as error:
                stream.history.fresh = True
                if not self._told_of_disk:
                    self._told_of_disk = True
                    _log.error("the streams' history cannot be saved", extra={"fields": dict(error.record())})


def _width(stream: Stream) -> int:
    """How wide pictures have to be for all who want them; 0 if nobody does."""
    return max([*stream.widths, stream.sinks.picture_width if stream.sinks else 0], default=0)
