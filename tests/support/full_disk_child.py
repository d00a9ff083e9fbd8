"""Gives frames to a bucket sink whose spool lies on a disk that fills up, and is freed: `OUT DATA REPORT`."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

from buoy.serve.live.sinks import Limits, Sinks
from buoy.streams.spec import read_spec
from support.frames import frame


def main(out: Path, data: Path, report: Path) -> None:
    logging.basicConfig(level=logging.INFO)
    spec = {"name": "reef", "source": "push:", "sinks": [{"kind": "bucket", "to": str(out)}]}
    sinks = Sinks(read_spec(spec), data, Limits(queue_s=0.3, part_s=0.2))
    given = 0

    def give(pause_s: float = 0.002) -> dict[str, object]:
        nonlocal given
        sinks.frame({}, frame(given, f"2026-11-25T14:00:{given % 60:02}.000Z", [("rip", 0.9)]))
        given += 1
        time.sleep(pause_s)
        return sinks.status()[0]

    while give()["written"] < 20:  # type: ignore[operator]
        pass
    ballast = data / "ballast"
    with ballast.open("wb", buffering=0) as file:
        # What is sent makes room: without filling that too, nothing may ever be late.
        while not (full := give())["dropped"]:
            with suppress(OSError):
                while file.write(bytes(4096)):
                    pass
    ballast.unlink()
    # Slowly: where what is sent waits for a busy disk, 128 KiB would be full again at once, for ever.
    while give(0.02)["state"] != "ok":
        pass
    for _ in range(20):
        give()
    assert sinks.close(60)
    report.write_text(json.dumps({"given": given, "full": full, "end": sinks.status()[0]}))


main(*(Path(each) for each in sys.argv[1:]))
