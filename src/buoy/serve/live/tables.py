"""Time series as files: CSV for people and programs, NetCDF for archives."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from buoy.errors import JobError
from buoy.serve.refusals import Remote
from buoy.streams import tidy

if TYPE_CHECKING:
    from buoy.serve.live.stream import Stream

__all__ = ["FORMS", "encode"]

#: Form to media type and suffix; JSON is made by the route itself.
FORMS = {
    "json": ("application/json", "json"),
    "csv": ("text/csv; charset=utf-8", "csv"),
    "netcdf": ("application/x-netcdf", "nc"),
}
_PATIENCE_S = 60.0

#: Only one file is made at a time, by a process of 100 MB.
_one = asyncio.Semaphore(1)

Row = Mapping[str, Any]


async def encode(form: str, stream: Stream, window_minutes: int, since: str | None) -> bytes:
    """The series of a stream as the bytes of a file.

    Raises:
        UsageError: the windows cannot be so long, or `since` is no time.
        Remote: the file cannot be made; the extra may be missing.
        JobError: the process that makes it was lost.
    """
    columns, rows = stream.history.series.columns(), stream.history.series.rows(window_minutes, since)
    if form == "csv":
        return await asyncio.to_thread(_csv, columns, rows)
    spec = stream.spec
    asked = {"stream": spec.name, "station": spec.station, "camera": spec.camera, "window_s": window_minutes * 60}
    return await _netcdf({**asked, "columns": columns, "rows": rows})


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    return b"".join(tidy.encode(rows, columns))


async def _netcdf(asked: dict[str, Any]) -> bytes:
    pipe = asyncio.subprocess.PIPE
    data = await asyncio.to_thread(lambda: json.dumps(asked).encode())
    async with _one:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "buoy.serve.live.netcdf", stdin=pipe, stdout=pipe, stderr=pipe
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                made, said = await process.communicate(data)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode == 0:
        return made
    try:
        raise Remote(json.loads(said))
    except ValueError:
        raise JobError("the process that makes the file was lost", "ask again, or for a shorter time") from None
