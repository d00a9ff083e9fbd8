"""Runs a service's script as OSCAR's supervisor would: `/bin/sh script`, folders and event in the environment.

What the supervisor gets wrong is right here: the exit status counts, the log is live and bounded, and the
event reaches the script byte by byte (OSCAR sends it through `echo`).
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from buoy.gateway.deliver import Workplace, environment
from buoy.gateway.joblog import copy_log
from buoy.gateway.processes import Limits, base_environment, kill_group, start
from buoy.gateway.services import Service
from buoy.gateway.state import Job

__all__ = ["Ended", "over_limit", "run_script", "signal_name"]


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, or why there is none."""

    exit_code: int | None
    #: Set when buoy ended it, or a signal did.
    reason: str = ""


def run_script(job: Job, service: Service, place: Workplace, log: Path, limits: Limits, timeout_s: float) -> Ended:
    """Run the script to its end, or to its limits; stdout and stderr go to the log as they come."""
    script = place.folder / "script.sh"
    script.write_text(service.script, encoding="utf-8")
    env = {**base_environment(), **service.variables, **environment(job, service, place)}
    process = start(
        ["/bin/sh", str(script)], folder=place.folder, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    over: list[str] = []
    deadline = time.monotonic() + timeout_s
    limits.watch(process.pid, service.memory_bytes, lambda: deadline, over.append, job.name)
    try:
        assert process.stdout is not None
        reader = threading.Thread(target=copy_log, args=(process.stdout, log), name=f"log-{job.name}")
        reader.start()
        code = process.wait()
    finally:
        limits.release(process.pid)
        kill_group(process.pid)  # what the script left in the background goes, as it would with its container
        process.wait()
    reader.join()
    process.stdout.close()
    if over:
        return Ended(None, over_limit(over[0], service, timeout_s))
    if code < 0:
        return Ended(None, f"the script was ended by {signal_name(-code)}")
    return Ended(code)


def over_limit(over: str, service: Service, timeout_s: float) -> str:
    """Which limit, how much, and what to set."""
    what, _, used = over.partition(": ")
    if what == "deleted":
        return "deleted while it ran"
    if what == "time":
        return f"ended after {timeout_s:g} s, the time limit of a job; raise it with --job-timeout"
    allowed = service.memory_bytes >> 20
    return f"ended over its memory: it used {used} of {allowed} MiB; raise `memory` of service {service.name}"


def signal_name(number: int) -> str:
    """A signal as people know it."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
