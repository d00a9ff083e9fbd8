"""Makes a NetCDF file of a stream's series: `python -m buoy.serve.live.netcdf <ASKED >FILE`.

A process of its own: what it needs (h5py, numpy) would weigh 40 MB in the process that answers requests. ASKED is JSON,
see `Asked`; with exit code 1, stderr has the error's record as JSON. The file is described in `buoy.streams.netcdf`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from buoy.errors import as_buoy_error
from buoy.streams.netcdf import About, encode

__all__ = ["Asked", "make"]


class Asked(msgspec.Struct, kw_only=True):
    """What is to be written."""

    stream: str
    station: str
    camera: str
    window_s: int
    columns: list[str]
    #: See `buoy.streams.series`.
    rows: list[dict[str, Any]]


def make(asked: Asked) -> bytes:
    """The file.

    Raises:
        UsageError: the extra `series` is not installed.
    """
    about = About(asked.stream, asked.station, asked.camera, asked.window_s, asked.columns)
    return encode(asked.rows, about)


def main() -> int:
    """Read what is asked, write the file; returns the exit code."""
    try:
        os.nice(10)
        made = make(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))
    except Exception as error:
        sys.stderr.write(msgspec.json.encode(as_buoy_error(error, "NetCDF").record()).decode())
        return 1
    sys.stdout.buffer.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
