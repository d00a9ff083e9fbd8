"""Live events for the page (server-sent events), without a gap over reconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from buoy.gateway.node import Node
from buoy.gateway.views import job_view, result_view

__all__ = ["Live"]

_HEARTBEAT_S = 15.0
#: Changes within this time go out together.
_GATHER_S = 0.05
#: A zip of thousands has as many results; the page asks for the rest when it wants it.
_RESULTS_OF_A_JOB = 50


class Live:
    """The stream `/page/events`: `job`, `result` and `service` events, their ids the state's sequence."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def events(self, request: Request) -> Response:
        """Everything after `Last-Event-ID` (or `?since=`), else from now on."""
        last = request.headers.get("last-event-id") or request.query_params.get("since", "")
        since = int(last) if last.isdecimal() else self._node.state.seq
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(since), headers=headers, media_type="text/event-stream")

    async def _stream(self, since: int) -> AsyncIterator[str]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        stop_watching = self._node.on_change(wake)
        exposed = self._node.exposed.changes
        try:
            yield "retry: 1000\n\n"
            while not self._node.stopping.is_set():
                changed.clear()
                if exposed != self._node.exposed.changes:  # without an id: nothing that could be missed
                    exposed = self._node.exposed.changes
                    yield "event: service\ndata: {}\n\n"
                since, events = await run_in_threadpool(self._after, since)
                for event in events:
                    yield event
                if events:
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), _HEARTBEAT_S)
                    await asyncio.sleep(_GATHER_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            stop_watching()

    def _after(self, since: int) -> tuple[int, list[str]]:
        """Events of the changes after that number, and the number of the last of them."""
        state = self._node.state
        found: list[tuple[int, str, Any]] = [
            (row.seq, "service", {"name": row.name, "deleted": row.deleted})
            for row in state.services(since, deleted=True)
        ]
        jobs = state.changed_jobs(since)
        over = [job for job in jobs if job.state in ("Succeeded", "Failed")]
        outputs = state.outputs([job.id for job in over])
        found += [(job.seq, "job", job_view(job)) for job in jobs]
        for job in over:
            results = [o for o in outputs[job.id] if o.key.endswith(".json") and not o.key.endswith(".obsea.json")]
            found += [(job.seq, "result", result_view(self._node, o, job)) for o in results[:_RESULTS_OF_A_JOB]]
        found.sort(key=lambda event: event[0])
        events = []
        for number, (seq, name, data) in enumerate(found):
            # only the last event of a change carries its id, so that no half of one is skipped after a cut
            last = number + 1 == len(found) or found[number + 1][0] != seq
            text = json.dumps(data, separators=(",", ":"))
            events.append((f"id: {seq}\n" if last else "") + f"event: {name}\ndata: {text}\n\n")
        return (found[-1][0] if found else since), events
