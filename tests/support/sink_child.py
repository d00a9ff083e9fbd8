"""Gives frames to a bucket sink until it is killed: `python sink_child.py TO FORMAT DATA FIRST`.

Says on stdout, a line each, how many are on the disk or beyond.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from buoy.serve.live.sinks import Limits, Sinks
from buoy.streams.spec import read_spec
from support.frames import frame


def main(to: str, form: str, data: str, first: str) -> None:
    spec = {"name": "reef", "source": "push:", "sinks": [{"kind": "bucket", "to": to, "format": form}]}
    sinks = Sinks(read_spec(spec), Path(data), Limits(part_s=0.05))
    number, told = int(first), 0
    while True:
        sinks.frame({}, frame(number, f"2026-11-25T14:00:{number % 60:02}.000Z", [("rip", 0.9)]))
        number += 1
        time.sleep(0.001)
        written = sinks.status()[0]["written"]
        if written > told:
            told = written
            print(written, flush=True)


main(*sys.argv[1:])
