"""From the queue to the slots: claims jobs, runs them, keeps what came of it.

    pending → claim → stage input → script or resident worker → upload outputs → Succeeded | Failed
                 ↑______ requeue: a fault of the infrastructure, with back-off ______|

A job is Succeeded only when all its outputs are in the store, so that it may be killed anywhere before
and simply runs again. Its slot is free as soon as its run is over: uploading overlaps the next run.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buoy.errors import BuoyError, JobError, StoreError, as_buoy_error
from buoy.gateway.deliver import Workplace, files_below, stage, upload
from buoy.gateway.joblog import tail
from buoy.gateway.last_word import write_error_record
from buoy.gateway.processes import Limits
from buoy.gateway.run_script import Ended, run_script
from buoy.gateway.run_warm import Death, Worker, is_ours
from buoy.gateway.services import Service
from buoy.gateway.slots import Slots
from buoy.gateway.state import Job, State
from buoy.store import Store

__all__ = ["Dispatcher", "Outcome"]

_log = logging.getLogger(__name__)

#: sysexits.h: "temporary failure; the user is invited to retry".
_EX_TEMPFAIL = 75
#: `buoy function`: finished, but some inputs have an error record instead of a result.
_INPUTS_FAILED = 3
#: So many runs at most, over about three minutes, when the infrastructure is at fault.
_ATTEMPTS = 10
_DELAY_S, _LONGEST_DELAY_S = 0.5, 60.0
#: Uploads that may be under way before no more jobs are started.
_UPLOADS = 32


@dataclass(frozen=True)
class Outcome:
    """What a caller that waits for a job is told: its end, and its files or its log."""

    state: str
    exit_code: int | None
    reason: str
    files: list[tuple[str, bytes]]
    log: str


@dataclass(eq=False)
class _Run:
    job: Job
    service: Service
    place: Workplace | None = None
    holds_slot: bool = True


class Dispatcher:
    """Runs what is pending, as much at once as the slots allow."""

    def __init__(
        self,
        state: State,
        store: Store,
        services: Mapping[str, Service],
        data: Path,
        slots: Slots,
        *,
        timeout_s: float = 3600.0,
        idle_s: float = 300.0,
    ) -> None:
        self._state = state
        self._store = store
        self._services = services
        self._work, self._logs, self._payloads = data / "work", data / "logs", data / "payloads"
        self._slots = slots
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._limits = Limits()
        self._lock = threading.Lock()
        self._workers: dict[str, Worker] = {}
        self._workers_lock = threading.Lock()
        self._alone: set[str] = set()
        self._callers: dict[str, Future[Outcome]] = {}
        self._ending = 0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(64, "run")
        self._uploads = ThreadPoolExecutor(8, "upload")
        self._thread = threading.Thread(target=self._loop, name="dispatch", daemon=True)

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    def stop(self) -> None:
        """End what runs and put it back into the queue; let uploads that have begun finish."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._limits.end_all("stop")
        with self._workers_lock:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.kill()
        self._pool.shutdown()
        self._uploads.shutdown()
        self._limits.stop()
        for caller in self._callers.values():
            caller.set_exception(JobError("buoy up is stopping", "send it again once it runs", retry=True))

    def wake(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def expect(self, name: str) -> Future[Outcome]:
        """Ask to be told the outcome of a job, before it is queued."""
        return self._callers.setdefault(name, Future())

    def cancel(self, name: str) -> None:
        """End the script of a job that was deleted. In a resident worker, the job ends by itself."""
        self._limits.end(name, "deleted")

    def hold(self, service: Service, *, must: bool) -> tuple[int, int] | None:
        """See `Slots.hold`."""
        with self._lock:
            return self._slots.hold(service, must=must)

    def let_go(self, cost: tuple[int, int]) -> None:
        """See `Slots.let_go`."""
        with self._lock:
            self._slots.let_go(cost)
        self._wake.set()

    def warm(self, service: Service) -> bool:
        """Tells whether a resident worker answers for the service."""
        return is_ours(service.script) and not service.skip_fetch

    def loaded(self, service: str) -> bool:
        """Tells whether the service's worker is in memory right now."""
        return service in self._workers

    def log_path(self, job_name: str) -> Path:
        """Where a job's log is."""
        return self._logs / f"{job_name}.log"

    # The loop

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(1.0)  # not only when woken: jobs come out of their back-off, workers grow idle
            self._wake.clear()
            try:
                while not self._stopping.is_set() and self._start_one():
                    pass
                self._retire()
            except StoreError as error:
                _log.error("the queue cannot be read or written: %s", error)
                self._stopping.wait(1.0)
                self._wake.set()

    def _start_one(self) -> bool:
        with self._lock:
            if self._ending >= _UPLOADS:
                return False
            jobs = {}
            due = []
            for service in tuple(self._services.values()):
                job = self._state.next_pending(service.name)
                if job is None or (self._slots.running(service.name) and (job.alone or service.name in self._alone)):
                    continue
                jobs[service.name] = job
                due.append((job.id, service, self.warm(service)))
            chosen = self._slots.pick(due)
            if chosen is None:
                return False
            job = jobs[chosen.name]
            if not self._state.claim(job):
                return True
            self._slots.take(chosen)
            if job.alone:
                self._alone.add(chosen.name)
        self._pool.submit(self._run, _Run(job._replace(attempt=job.attempt + 1), chosen))
        return True

    def _release(self, run: _Run) -> None:
        with self._lock:
            if run.holds_slot:
                run.holds_slot = False
                self._ending += 1
                self._slots.give(run.service)
                if run.job.alone:
                    self._alone.discard(run.service.name)
        self._wake.set()

    # One job

    def _run(self, run: _Run) -> None:
        job, service = run.job, run.service
        try:
            run.place = stage(job, service, self._store, self._work / job.name, self._payloads)
            if self.warm(service):
                self._ask(run, run.place)
            else:
                self._run_script(run, run.place)
        except Exception as error:
            self._end(run, error)

    def _run_script(self, run: _Run, place: Workplace) -> None:
        log = self.log_path(run.job.name)
        self._end(run, run_script(run.job, run.service, place, log, self._limits, self._timeout_s))

    def _ask(self, run: _Run, place: Workplace) -> None:
        assert place.input is not None
        object_key = run.job.key if run.job.bucket else ""

        def answer(reply: dict[str, Any] | Death) -> None:
            self._release(run)
            self._pool.submit(self._replied, run, reply)

        while not self._worker(run.service).submit(run.job.id, place.input, place.output_dir, object_key, answer):
            pass

    def _worker(self, service: Service) -> Worker:
        """The service's worker; a new one if there is none, or it is going, or it has another definition."""
        with self._workers_lock:
            worker = self._workers.get(service.name)
            if worker is not None and worker.takes_jobs and worker.service == service:
                return worker
            if worker is not None:
                self._pool.submit(worker.leave)
            if self._stopping.is_set():
                raise JobError("buoy up is stopping", retry=True)
            fresh = Worker(
                service,
                self._slots.lanes(service),
                self._work / f"worker-{service.name}",
                self._logs / f"worker-{service.name}.log",
                self._limits,
                self._timeout_s,
            )
            self._workers[service.name] = fresh
            return fresh

    def _replied(self, run: _Run, reply: dict[str, Any] | Death) -> None:
        if isinstance(reply, Death):
            try:
                self._died(run, reply)
            except Exception as error:
                self._fault(run, error)
            return
        self._write_log(run.job, str(reply.get("log", "")))
        self._end(run, Ended(int(reply["exit"])))

    def _died(self, run: _Run, death: Death) -> None:
        """A worker's end, for one of the jobs it had: several suspects are tried again one by one."""
        job = run.job
        if self._stopping.is_set() or death.blame == "bystander":
            self._put_back(run, f"started again: {death.reason}", counts=False)
        elif death.blame == "suspect" and not job.alone:
            self._put_back(run, f"started again by itself: {death.reason}", alone=True)
        elif death.blame == "refused":
            # The script says the same, and leaves the error record that it is to leave.
            assert run.place is not None
            self._run_script(run, run.place)
        else:
            where = f" while working on {job.key}" if death.blame == "suspect" else ""
            self._give_up(run, JobError(f"{death.reason}{where}", "the other inputs are not affected"))

    def _give_up(self, run: _Run, error: JobError) -> None:
        """The end of a job that no process of its own can tell of."""
        job, place = run.job, run.place
        assert place is not None
        write_error_record(job, run.service, place, error)
        outputs = upload(job, run.service, self._store, self._state, place.output_dir, self._uploads)
        self._finish(run, "Failed", reason=error.message, inputs_failed=1, outputs=outputs)

    def _end(self, run: _Run, how: Ended | Exception) -> None:
        """Everything after a run: outputs into the store, the job's last state, its folder removed."""
        self._release(run)
        try:
            if self._stopping.is_set() and not (isinstance(how, Ended) and how.exit_code is not None):
                self._put_back(run, "started again: buoy up stopped while it ran", counts=False)
            elif isinstance(how, Exception):
                self._fault(run, how)
            else:
                self._conclude(run, how)
        except Exception as error:
            self._fault(run, error)

    def _conclude(self, run: _Run, ended: Ended) -> None:
        job, place, code = run.job, run.place, ended.exit_code
        assert place is not None
        if code is None:
            self._finish(run, "Failed", reason=ended.reason)
            return
        if code == _EX_TEMPFAIL:
            raise JobError("the script asked to be run again (exit code 75)", retry=True)
        outputs = upload(job, run.service, self._store, self._state, place.output_dir, self._uploads)
        records = [name for name, _ in files_below(place.output_dir) if name.endswith(".error.json")]
        state, reason = "Failed", ""
        if code == 0:
            state = "Succeeded"
        elif code == _INPUTS_FAILED:
            reason = f"{len(records)} of its inputs failed, see {', '.join(records[:3]) or 'the log'}"
        else:
            reason = f"the script ended with exit code {code}: {_last_line(self.log_path(job.name))}"
        self._finish(run, state, exit_code=code, reason=reason, inputs_failed=len(records), outputs=outputs)

    def _fault(self, run: _Run, error: Exception) -> None:
        """Something other than the input went wrong: again later, or the end after so many times."""
        job = run.job
        told = as_buoy_error(error, f"job {job.name}")
        if not isinstance(error, (BuoyError, OSError)):
            _log.error("job %s", job.name, exc_info=error)
        if told.retry and job.attempt < _ATTEMPTS and job.source != "run":
            self._put_back(run, str(told))
        else:
            tried = f" (tried {job.attempt} times)" if job.attempt > 1 else ""
            self._finish(run, "Failed", reason=f"{told}{tried}")

    def _put_back(self, run: _Run, reason: str, *, alone: bool = False, counts: bool = True) -> None:
        delay_s = min(_LONGEST_DELAY_S, _DELAY_S * 2.0 ** (run.job.attempt - 1)) * random.uniform(0.75, 1.25)
        _log.warning("job %s (%s): %s", run.job.name, run.job.key, reason)
        self._persist(
            lambda: self._state.requeue(
                run.job, reason, delay_s=delay_s if counts and not alone else 0.0, alone=alone, counts=counts
            )
        )
        self._leave(run)

    def _finish(self, run: _Run, state: str, **how: Any) -> None:
        job = run.job
        if how.get("reason"):
            self._write_log(job, f"buoy: {how['reason']}\n", append=True)
        caller = self._callers.pop(job.name, None)
        outcome = self._outcome(run, state, how) if caller else None
        self._persist(lambda: self._state.finish(job, state, **how))
        if not job.bucket and (state == "Succeeded" or job.source == "run"):
            (self._payloads / job.name).unlink(missing_ok=True)
        self._leave(run)
        if caller and outcome:
            caller.set_result(outcome)

    def _leave(self, run: _Run) -> None:
        if run.place is not None:
            run.place.clear()
        with self._lock:
            self._ending -= 1
        self._wake.set()

    def _persist(self, change: Callable[[], None]) -> None:
        """Commit, however long the disk stays full: a job's end must not get lost."""
        while True:
            try:
                change()
            except StoreError as error:
                _log.error("the end of a job cannot be kept yet: %s", error)
                if self._stopping.wait(1.0):
                    return
            else:
                return

    def _outcome(self, run: _Run, state: str, how: dict[str, Any]) -> Outcome:
        files = []
        if run.place is not None:
            files = [(name, path.read_bytes()) for name, path in files_below(run.place.output_dir)]
        log = tail(self.log_path(run.job.name), 1 << 20)
        return Outcome(state, how.get("exit_code"), how.get("reason", ""), files, log)

    def _write_log(self, job: Job, text: str, *, append: bool = False) -> None:
        try:
            with self.log_path(job.name).open("a" if append else "w", encoding="utf-8") as log:
                log.write(text)
        except OSError as error:
            _log.warning("log of job %s: %s", job.name, error)

    def _retire(self) -> None:
        """Send workers home that have had nothing to do for long, or whose service is gone."""
        with self._workers_lock:
            for name, worker in list(self._workers.items()):
                if worker.idle_s > self._idle_s or name not in self._services:
                    del self._workers[name]
                    self._pool.submit(worker.leave)


def _last_line(log: Path) -> str:
    return tail(log, 500).strip().rpartition("\n")[2] or "it said nothing"
