"""A resident worker: the model stays loaded, jobs go in as lines of JSON and come back as they end.

It serves a service whose script is our own `fdl/script.sh`, and calls the same function that the script
would, so the outputs are the same. See `buoy.worker` for the protocol.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from buoy.fdl import SCRIPT
from buoy.gateway.joblog import copy_log, tail
from buoy.gateway.processes import Limits, base_environment, kill_group, start
from buoy.gateway.run_script import over_limit, signal_name
from buoy.gateway.services import Service

__all__ = ["Death", "Worker", "is_ours"]

_log = logging.getLogger(__name__)


def is_ours(script: str) -> bool:
    """Tells whether a script is `fdl/script.sh`, which a resident worker may answer for."""
    return script.replace("\r\n", "\n").strip() == SCRIPT.strip()


@dataclass(frozen=True)
class Death:
    """How the worker of a job came to its end.

    `blame` is what that means for this job: `refused` the worker never was ready, by its own word;
    `late` the job itself was over its time; `bystander` another one was; `suspect` nobody knows.
    """

    reason: str
    blame: Literal["refused", "late", "bystander", "suspect"]


#: Called once per job, from the worker's reader thread: its reply, or how the worker died.
Answer = Callable[[dict[str, Any] | Death], None]


@dataclass
class _Asked:
    answer: Answer
    #: Set when the job is among the first as many as there are lanes: until then it only waits.
    deadline_s: float | None = None


class Worker:
    """One `python -m buoy.worker` process of a service.

    Args:
        service: whose variables name the model.
        lanes: how many jobs it works on at once.
        folder: its own, for notes.
        log: where its stderr goes.
        timeout_s: of each job; one that takes longer ends the process.
    """

    def __init__(self, service: Service, lanes: int, folder: Path, log: Path, limits: Limits, timeout_s: float) -> None:
        self.service = service
        self.used_s = time.monotonic()
        self._lanes = lanes
        self._limits = limits
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._waiting: dict[int, _Asked] = {}
        self._over = ""
        self._late: set[int] = set()
        self._refusal = ""
        self._closed = False
        self._log_path = log
        folder.mkdir(parents=True, exist_ok=True)
        env = {**base_environment(), **service.variables, "BUOY_LANES": str(lanes)}
        self._process = start(
            [sys.executable, "-m", "buoy.worker"],
            folder=folder,
            env=env,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        # As many jobs at once as it has lanes would have so much memory on OSCAR.
        limits.watch(self._process.pid, service.memory_bytes * lanes, self._deadline, self._limit)
        self._errors = threading.Thread(
            target=copy_log, args=(self._process.stderr, log), name=f"log-{service.name}", daemon=True
        )
        self._errors.start()
        self._replies = threading.Thread(target=self._read, name=f"worker-{service.name}", daemon=True)
        self._replies.start()

    @property
    def takes_jobs(self) -> bool:
        """Tells whether it lives, and has not been asked to leave."""
        return not self._closed

    @property
    def idle_s(self) -> float:
        """For how long it has had nothing to do."""
        return 0.0 if self._waiting else time.monotonic() - self.used_s

    def submit(self, job_id: int, source: Path, output_dir: Path, object_key: str, answer: Answer) -> bool:
        """Give it a job; `answer` is called when it ends, or the worker does. `False` if it takes none."""
        job = {"id": job_id, "input": str(source), "output_dir": str(output_dir), "object_key": object_key}
        with self._lock:
            if self._closed:
                return False
            self._waiting[job_id] = _Asked(answer)
            self._start_clocks()
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):  # the reader sees its end, and answers for it
                self._process.stdin.write(json.dumps(job).encode() + b"\n")
                self._process.stdin.flush()
        return True

    def leave(self, wait_s: float = 10.0) -> None:
        """Let it finish what it has, then end; kill it when it takes longer."""
        with self._lock:
            self._close()
        self._replies.join(wait_s)
        self.kill()

    def kill(self) -> None:
        """End it now; its jobs are answered with `Death`."""
        if self._replies.is_alive():
            kill_group(self._process.pid)
        self._replies.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                try:
                    self._reply(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    _log.warning("worker of %s: not a reply: %r", self.service.name, line[:200])
        with self._lock:
            self._close()
        code = self._process.wait()
        self._limits.release(self._process.pid)
        self._errors.join()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        cause = self._cause(code)
        for job_id, asked in waiting.items():
            asked.answer(Death(cause, self._blame(job_id)))

    def _reply(self, reply: dict[str, Any]) -> None:
        if "ready" in reply:
            if not reply["ready"]:
                error = reply["error"]
                self._refusal = f"{error['message']}; {error['hint']}" if error.get("hint") else error["message"]
            return
        with self._lock:
            asked = self._waiting.pop(reply["id"])
            self.used_s = time.monotonic()
            self._start_clocks()
        asked.answer(reply)

    def _start_clocks(self) -> None:
        for asked in islice(self._waiting.values(), self._lanes):
            if asked.deadline_s is None:
                asked.deadline_s = time.monotonic() + self._timeout_s

    def _close(self) -> None:
        self._closed = True
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _cause(self, code: int) -> str:
        if self._refusal:
            return self._refusal
        if self._over:
            return over_limit(self._over, self.service, self._timeout_s)
        if code < 0:
            return f"the model process was ended by {signal_name(-code)}"
        return f"the model process ended with exit code {code}: {tail(self._log_path, 500).strip()}"

    def _blame(self, job_id: int) -> Literal["refused", "late", "bystander", "suspect"]:
        if self._refusal:
            return "refused"
        if self._late:
            return "late" if job_id in self._late else "bystander"
        return "suspect"

    def _deadline(self) -> float | None:
        with self._lock:
            return min((a.deadline_s for a in self._waiting.values() if a.deadline_s is not None), default=None)

    def _limit(self, over: str) -> None:
        self._over = over
        if over == "time":
            now = time.monotonic()
            with self._lock:
                self._late = {
                    job
                    for job, asked in self._waiting.items()
                    if asked.deadline_s is not None and now > asked.deadline_s
                }
