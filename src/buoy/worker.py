"""A resident worker: the model is loaded once, and events come as lines instead of as processes.

`python -m buoy.worker`, with the variables of the function (`BUOY_MODEL`, `BUOY_OUTPUTS`, `BUOY_INPUT`) and
`BUOY_LANES`, how many jobs are worked on at once (1 if unset). A line of JSON each way:

    out  {"ready": true, "model": "obsea-fish", "pid": 4711}       once, when loaded
    out  {"ready": false, "error": {class, message, hint}}         instead of that; exit code 1
    in   {"id": 7, "input": "/.../x.jpg", "output_dir": "/.../out", "object_key": "input/x.jpg"}
    out  {"id": 7, "exit": 0, "log": "..."}                        as jobs end, in any order

At the end of stdin what was accepted is finished, and the exit code is 0. Exit code and log of a job are those
that `buoy function` would have given, and the files are the same bytes outside `run`: both are
`buoy.function.attempt`. A job's failure never ends the worker; only a crash of the process does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from buoy.engine import Engine
from buoy.errors import UsageError, as_buoy_error
from buoy.function import DONE, ERROR, Event, Setup, attempt

__all__ = ["main"]


class _Replies:
    """Writes lines of JSON, whole, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, reply: Mapping[str, Any]) -> None:
        """One line. Nobody left to read it is no fault: the files of the job are written all the same."""
        with self._lock, suppress(BrokenPipeError):
            self._stream.write(json.dumps(reply).encode() + b"\n")
            self._stream.flush()


def main() -> int:
    """Serve jobs from stdin until it ends; returns the exit code."""
    # Ctrl-C in a terminal reaches the whole group. Our parent decides: it closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = _Replies(_take_stdout())
    try:
        setup = Setup.read(os.environ)
        lanes = _lanes(os.environ.get("BUOY_LANES") or "1")
        engine = Engine.open(setup.folder, callers=lanes, keep_pixels=setup.draws)
    except Exception as error:
        told = as_buoy_error(error, "buoy worker")
        print(f"buoy: {told}", file=sys.stderr)
        replies.send({"ready": False, "error": told.record()})
        return ERROR
    # One job more than lanes: files are drawn and written while the next picture is in the engine.
    with engine, ThreadPoolExecutor(lanes + 1, thread_name_prefix="job") as pool:
        replies.send({"ready": True, "model": engine.model.info.name, "pid": os.getpid()})
        for line in sys.stdin.buffer:
            if line.strip():
                pool.submit(_serve, line, engine, setup, replies)
    return DONE


def _serve(line: bytes, engine: Engine, setup: Setup, replies: _Replies) -> None:
    """Do one job, and reply whatever happens."""
    log: list[str] = []
    job_id: Any = None
    try:
        job = json.loads(line)
        job_id = job["id"]
        event = Event(Path(job["input"]), Path(job["output_dir"]), job.get("object_key") or "")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        log.append(f"buoy: not a job: {error!r} in {line[:200]!r}")
        code = ERROR
    else:
        code = attempt(engine, event, setup, log.append)
    replies.send({"id": job_id, "exit": code, "log": "".join(f"{entry}\n" for entry in log)})


def _take_stdout() -> BinaryIO:
    """Keep stdout for the protocol: what anything else prints, C libraries included, goes to stderr."""
    sys.stdout.flush()
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return protocol


def _lanes(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"BUOY_LANES is {text!r}", "set it to how many jobs may run at once: 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
