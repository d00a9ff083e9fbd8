"""What the gateway knows, in one SQLite file: services, jobs, written objects.

WAL with `synchronous=NORMAL`: a commit is in the kernel's hands when it returns, so kill -9 loses
nothing. Only a power cut can take back the last commits, and then listing finds those objects again;
the one thing that listing cannot find, a payload posted to `/job`, is committed with an fsync (FULL).

Every change takes the next number of one sequence, and each row keeps the number of its last change: what
a page missed is `seq > last seen`, compacted by itself, and needs no log of events.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from buoy.errors import StoreError
from buoy.store import Object

__all__ = ["Job", "NewJob", "Output", "ServiceRow", "State"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sequence (last INTEGER NOT NULL);
INSERT INTO sequence SELECT 0 WHERE NOT EXISTS (SELECT * FROM sequence);
CREATE TABLE IF NOT EXISTS services (
    name TEXT PRIMARY KEY,
    definition TEXT NOT NULL,              -- JSON, normalised; what GET answers, and the token
    fdl TEXT NOT NULL,                     -- the YAML it came from, or ''
    deleted INTEGER NOT NULL DEFAULT 0,    -- kept so that a page learns of it
    seq INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    bucket TEXT NOT NULL,                  -- '' for a posted payload; then key is the file's name
    key TEXT NOT NULL,
    etag TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    source TEXT NOT NULL,                  -- event | job | run
    event TEXT,                            -- as it was delivered, else made from the object
    lineage TEXT NOT NULL,                 -- JSON list of the services that led to the input
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,             -- 0 retried alone after a crash, 1 someone waits (/run), 2 the rest
    not_before REAL NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    inputs_failed INTEGER NOT NULL DEFAULT 0,
    hidden INTEGER NOT NULL DEFAULT 0,     -- deleted by its user; kept so that listing does not run it again
    seq INTEGER NOT NULL
);
-- One object is one job of a service, however often its event comes. A replaced object has another etag.
-- Only a caller who waits (/run) gets a run of his own.
CREATE UNIQUE INDEX IF NOT EXISTS jobs_once ON jobs(service, bucket, key, etag)
    WHERE bucket <> '' AND source <> 'run';
CREATE INDEX IF NOT EXISTS jobs_pending ON jobs(service, priority, id) WHERE state = 'Pending';
CREATE INDEX IF NOT EXISTS jobs_running ON jobs(id) WHERE state = 'Running';
CREATE INDEX IF NOT EXISTS jobs_seq ON jobs(seq);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs(service, state);
CREATE TABLE IF NOT EXISTS written (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    etag TEXT,                             -- NULL while the upload is under way
    size_bytes INTEGER NOT NULL DEFAULT 0,
    job INTEGER NOT NULL,
    lineage TEXT NOT NULL,                 -- JSON list of services, the writer last
    UNIQUE(bucket, key) ON CONFLICT REPLACE
);
CREATE INDEX IF NOT EXISTS written_job ON written(job);
"""


class ServiceRow(NamedTuple):
    """A service as it is kept."""

    name: str
    definition: dict[str, Any]
    fdl: str
    deleted: bool
    seq: int


class NewJob(NamedTuple):
    """What makes a job: an object that arrived for a service, or a payload posted to it."""

    name: str
    service: str
    bucket: str
    key: str
    etag: str
    size_bytes: int
    source: str = "event"
    event: str | None = None
    lineage: tuple[str, ...] = ()


class Job(NamedTuple):
    """A row of the queue. Times are seconds since 1970."""

    id: int
    name: str
    service: str
    bucket: str
    key: str
    etag: str
    size_bytes: int
    source: str
    event: str | None
    lineage: tuple[str, ...]
    state: str
    priority: int
    attempt: int
    created: float
    started: float | None
    finished: float | None
    exit_code: int | None
    reason: str
    inputs_failed: int
    seq: int

    @property
    def alone(self) -> bool:
        """Tells whether it must run by itself, because a worker died while it was in flight."""
        return self.priority == 0


_JOB = ", ".join(Job._fields)


class Output(NamedTuple):
    """An object that a job wrote; `id` grows with time."""

    id: int
    bucket: str
    key: str
    size_bytes: int


class State:
    """The only writer of the file; every method is one short transaction."""

    def __init__(self, path: Path) -> None:
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it holds tokens and secrets
            self._writer = _connect(path)
            self._writer.executescript(_SCHEMA)
            self._reader = _connect(path)
            (last,) = self._writer.execute("SELECT last FROM sequence").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}", "is the folder writable, and is its disk not full?") from error
        self._seq: int = last
        self._last = self._seq

    def close(self) -> None:
        """End both connections; the file is whole at any time, with or without this."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after every commit, from the committing thread; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    @property
    def seq(self) -> int:
        """The number of the latest change."""
        return self._seq

    # Services

    def put_service(self, name: str, definition: dict[str, Any], fdl: str = "") -> None:
        """Create or replace a service."""
        with self._change() as (db, seq):
            db.execute(
                "INSERT INTO services(name, definition, fdl, deleted, seq) VALUES (?, ?, ?, 0, ?)"
                " ON CONFLICT(name) DO UPDATE SET definition=excluded.definition, fdl=excluded.fdl,"
                " deleted=0, seq=excluded.seq",
                (name, json.dumps(definition), fdl, seq),
            )

    def delete_service(self, name: str) -> None:
        """Forget a service: its waiting jobs fail, its finished ones are hidden."""
        with self._change() as (db, seq):
            db.execute("UPDATE services SET deleted=1, seq=? WHERE name=?", (seq, name))
            db.execute(
                "UPDATE jobs SET state='Failed', reason='the service was deleted', finished=?"
                " WHERE service=? AND state='Pending'",
                (time.time(), name),
            )
            db.execute("UPDATE jobs SET hidden=1, seq=? WHERE service=?", (seq, name))

    def services(self, since: int = -1, *, deleted: bool = False) -> list[ServiceRow]:
        """All services by name; with `since`, those changed after that number."""
        rows = self._select(
            "SELECT name, definition, fdl, deleted, seq FROM services WHERE seq>? AND deleted<=? ORDER BY name",
            (since, int(deleted)),
        )
        return [ServiceRow(n, json.loads(d), f, bool(gone), s) for n, d, f, gone, s in rows]

    # The queue

    def accept(self, jobs: Sequence[NewJob], *, fsync: bool = False) -> list[str]:
        """Queue those jobs that are new; returns their names."""
        if not jobs:
            return []
        now = time.time()
        with self._change(fsync=fsync) as (db, seq):
            accepted = []
            for number, new in enumerate(jobs, seq):  # each its own, so that a page can resume between two
                added = db.execute(
                    "INSERT INTO jobs(name, service, bucket, key, etag, size_bytes, source, event, lineage,"
                    " state, priority, created, seq) VALUES (?,?,?,?,?,?,?,?,?, 'Pending', ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    (*new[:8], json.dumps(new.lineage), 1 if new.source == "run" else 2, now, number),
                ).rowcount
                if added:
                    accepted.append(new.name)
            self._last = seq + len(jobs) - 1
        return accepted

    def known(self, service: str, bucket: str, first: str, last: str) -> set[tuple[str, str]]:
        """(key, etag) of the objects between two keys that already are jobs of the service."""
        rows = self._select(
            "SELECT key, etag FROM jobs WHERE service=? AND bucket=? AND bucket<>'' AND source<>'run'"
            " AND key BETWEEN ? AND ?",
            (service, bucket, first, last),
        )
        return set(rows)

    def job_of(self, service: str, obj: Object) -> Job | None:
        """The job that this object is, if it is one."""
        return self._job(
            "service=? AND bucket=? AND bucket<>'' AND key=? AND etag=?",
            (service, obj.bucket, obj.key, obj.etag),
        )

    def next_pending(self, service: str) -> Job | None:
        """The job of the service that is due first."""
        return self._job(
            "state='Pending' AND service=? AND not_before<=? ORDER BY priority, id LIMIT 1",
            (service, time.time()),
        )

    def claim(self, job: Job) -> bool:
        """Make a pending job a running one; `False` if somebody deleted it meanwhile."""
        with self._change() as (db, seq):
            return (
                db.execute(
                    "UPDATE jobs SET state='Running', attempt=attempt+1, started=?, finished=NULL, reason='', seq=?"
                    " WHERE id=? AND state='Pending'",
                    (time.time(), seq, job.id),
                ).rowcount
                == 1
            )

    def requeue(self, job: Job, reason: str, *, delay_s: float = 0.0, alone: bool = False, counts: bool = True) -> None:
        """Put a running job back, saying why.

        Args:
            job: the job.
            reason: shown while it waits.
            delay_s: it is not due before.
            alone: it then runs by itself only.
            counts: the run that ended counts as an attempt.
        """
        priority = 0 if alone else job.priority
        with self._change() as (db, seq):
            db.execute(
                "UPDATE jobs SET state='Pending', started=NULL, not_before=?, priority=?, reason=?,"
                " attempt=attempt-?, seq=? WHERE id=? AND state='Running'",
                (time.time() + delay_s, priority, reason, int(not counts), seq, job.id),
            )

    def finish(
        self,
        job: Job,
        state: str,
        *,
        exit_code: int | None = None,
        reason: str = "",
        inputs_failed: int = 0,
        outputs: Iterable[Object] = (),
    ) -> None:
        """End a job, once all that it wrote is in the store."""
        with self._change() as (db, seq):
            db.executemany(
                "UPDATE written SET etag=?, size_bytes=? WHERE bucket=? AND key=? AND job=?",
                [(o.etag, o.size_bytes, o.bucket, o.key, job.id) for o in outputs],
            )
            # of an earlier run that was cut off, and had other outputs
            db.execute("DELETE FROM written WHERE job=? AND etag IS NULL", (job.id,))
            db.execute(
                "UPDATE jobs SET state=?, exit_code=?, reason=?, inputs_failed=?, finished=?, seq=? WHERE id=?",
                (state, exit_code, reason, inputs_failed, time.time(), seq, job.id),
            )

    def retry(self, name: str) -> bool:
        """Queue a finished job once more, as new."""
        with self._change() as (db, seq):
            return (
                db.execute(
                    "UPDATE jobs SET state='Pending', priority=2, attempt=0, not_before=0, started=NULL,"
                    " finished=NULL, exit_code=NULL, reason='', inputs_failed=0, hidden=0, seq=?"
                    " WHERE name=? AND state IN ('Succeeded', 'Failed')",
                    (seq, name),
                ).rowcount
                == 1
            )

    def hide(self, service: str, name: str | None = None, *, every: bool = False) -> list[str]:
        """Take jobs from all lists: one by name, all that succeeded, or `every` one; returns their names."""
        which = "AND name=?" if name else "" if every else "AND state='Succeeded'"
        with self._change() as (db, seq):
            rows = db.execute(
                f"UPDATE jobs SET hidden=1, seq=?,"
                " reason=CASE state WHEN 'Pending' THEN 'deleted before it ran' ELSE reason END,"
                " state=CASE state WHEN 'Pending' THEN 'Failed' ELSE state END"
                f" WHERE service=? AND hidden=0 {which} RETURNING name",
                (seq, service, *([name] if name else [])),
            ).fetchall()
        return [row[0] for row in rows]

    def recover(self) -> int:
        """At start: what was running is pending again, what somebody waited for has failed."""
        with self._change() as (db, seq):
            db.execute(
                "UPDATE jobs SET state='Failed', finished=?, reason='buoy up stopped while its caller waited', seq=?"
                " WHERE source='run' AND state IN ('Pending', 'Running')",
                (time.time(), seq),
            )
            return db.execute(
                "UPDATE jobs SET state='Pending', started=NULL, seq=?,"
                " reason='started again: buoy up stopped while it ran' WHERE state='Running'",
                (seq,),
            ).rowcount

    # Written objects

    def begin_upload(self, job: Job, targets: Iterable[tuple[str, str]]) -> None:
        """Note who is about to write these (bucket, key), before any event can tell of them."""
        lineage = json.dumps([*job.lineage, job.service])
        with self._change() as (db, _):
            db.executemany(
                "INSERT INTO written(bucket, key, job, lineage) VALUES (?, ?, ?, ?)",
                [(bucket, key, job.id, lineage) for bucket, key in targets],
            )

    def forget_upload(self, job: Job) -> None:
        """Drop the notes of uploads that did not happen."""
        with self._change() as (db, _):
            db.execute("DELETE FROM written WHERE job=? AND etag IS NULL", (job.id,))

    def lineage(self, obj: Object) -> tuple[str, ...]:
        """The services that led to this object; none if a person put it there."""
        rows = self._select("SELECT etag, lineage FROM written WHERE bucket=? AND key=?", (obj.bucket, obj.key))
        for etag, lineage in rows:
            if etag is None or etag == obj.etag:
                return tuple(json.loads(lineage))
        return ()

    def outputs(self, job_ids: Sequence[int]) -> dict[int, list[Output]]:
        """What the jobs wrote, by job."""
        found: dict[int, list[Output]] = {job_id: [] for job_id in job_ids}
        marks = ",".join("?" * len(job_ids))
        sql = f"SELECT job, id, bucket, key, size_bytes FROM written WHERE job IN ({marks}) AND etag IS NOT NULL"
        for job_id, *row in self._select(sql + " ORDER BY id", job_ids):
            found[job_id].append(Output(*row))
        return found

    def results(self, service: str = "", *, before: int | None = None, limit: int = 50) -> list[tuple[Output, Job]]:
        """JSON outputs of jobs that are over, the latest first."""
        columns = ", ".join(f"j.{name}" for name in Job._fields)
        sql = (
            f"SELECT w.id, w.bucket, w.key, w.size_bytes, {columns} FROM written w JOIN jobs j ON j.id = w.job"
            " WHERE w.etag IS NOT NULL AND w.key LIKE '%.json' AND w.key NOT LIKE '%.obsea.json' AND j.hidden=0"
            " AND (?='' OR j.service=?) AND w.id < ? ORDER BY w.id DESC LIMIT ?"
        )
        rows = self._select(sql, (service, service, 2**62 if before is None else before, limit))
        return [(Output(*row[:4]), _as_job(row[4:])) for row in rows]

    # Questions

    def job(self, name: str) -> Job | None:
        """One job by name."""
        return self._job("name=? AND hidden=0", (name,))

    def jobs(
        self,
        service: str = "",
        *,
        state: str = "",
        before: int | None = None,
        limit: int = 100,
        sources: Sequence[str] = ("event", "job", "run"),
    ) -> list[Job]:
        """Jobs, the latest first."""
        marks = ",".join("?" * len(sources))
        rows = self._select(
            f"SELECT {_JOB} FROM jobs WHERE hidden=0 AND (?='' OR service=?) AND (?='' OR state=?) AND id<?"
            f" AND source IN ({marks}) ORDER BY id DESC LIMIT ?",
            (service, service, state, state, 2**62 if before is None else before, *sources, limit),
        )
        return [_as_job(row) for row in rows]

    def changed_jobs(self, since: int, limit: int = 500) -> list[Job]:
        """Jobs in the order of their last change, after that number."""
        rows = self._select(f"SELECT {_JOB} FROM jobs WHERE seq>? AND hidden=0 ORDER BY seq LIMIT ?", (since, limit))
        return [_as_job(row) for row in rows]

    def counts(self, service: str = "") -> dict[str, int]:
        """How many jobs are in each state."""
        sql = "SELECT state, COUNT(*) FROM jobs WHERE hidden=0 AND (?='' OR service=?) GROUP BY state"
        found = dict.fromkeys(("Pending", "Running", "Succeeded", "Failed"), 0)
        found.update(self._select(sql, (service, service)))
        return found

    # Inside

    def _job(self, where: str, values: Sequence[Any]) -> Job | None:
        rows = self._select(f"SELECT {_JOB} FROM jobs WHERE {where}", values)
        return _as_job(rows[0]) if rows else None

    def _select(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._read_lock:
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def _change(self, *, fsync: bool = False) -> Iterator[tuple[sqlite3.Connection, int]]:
        try:
            with self._write_lock:
                if fsync:
                    self._writer.execute("PRAGMA synchronous=FULL")
                self._writer.execute("BEGIN IMMEDIATE")
                self._last = self._seq + 1
                try:
                    yield self._writer, self._last
                    self._writer.execute("UPDATE sequence SET last=?", (self._last,))
                    self._writer.execute("COMMIT")
                    self._seq = self._last
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
                finally:
                    if fsync:
                        self._writer.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.OperationalError as error:
            raise StoreError(f"state.db: {error}", "is its disk full or read-only?", retry=True) from error
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits for changes."""
        for watcher in tuple(self._watchers):
            watcher()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    return db


def _as_job(row: Sequence[Any]) -> Job:
    job = Job(*row)
    return job._replace(lineage=tuple(json.loads(job.lineage)))  # type: ignore[arg-type]
