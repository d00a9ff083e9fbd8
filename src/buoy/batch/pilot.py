"""A pilot: one process of whatever engine, which pulls cells until there are none, or its time is over.

    take a slot, else leave
    take a cell: a free one, else one whose claim has expired     claim/<cell>-<epoch>    create-only
    run its rows, beating meanwhile                               hb/<pilot>              overwritten
    store the rows                                                att/...                 unique key
    end the cell                                                  fin/<cell>              create-only

What a pilot does after it was taken for dead stays without effect: `fin` has one creator. A cell that has
killed two pilots is halved; a single row that has killed three is a failed row. All waits are on the pilot's own
clock, and all is done in one thread, so that a test can play every order of events. On a store that cannot be
trusted the coordinator does what is said of slot, claim and `fin` here, see `division`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from buoy.batch import failpoint
from buoy.batch.budget import Budget
from buoy.batch.clock import Clock
from buoy.batch.control import Control
from buoy.batch.division import Assigned, Claimed, Division
from buoy.batch.fin import Attempt, Part, halves, split
from buoy.batch.layout import Cell, claim_key
from buoy.batch.lease import LeaseWatch
from buoy.batch.ledger import Ledger
from buoy.batch.view import View
from buoy.errors import BuoyError, StoreError

__all__ = ["Done", "Ending", "Pace", "Pilot", "Rows", "Runner"]

#: So many claims of a cell have to expire before it is halved, or its only row given up.
_HALVE_AFTER, _GIVE_UP_AFTER = 2, 3
#: The breaker looks at so many of the last objects, and not before it has seen so many.
_BREAKER_WINDOW, _BREAKER_LEAST = 500, 200
#: A pilot that is given no work for so many leases leaves: there is no coordinator.
_ALONE = 10.0


class Pace(Struct, frozen=True, kw_only=True):
    """How often and how long, in seconds."""

    #: A heartbeat that has not moved for so long is that of a dead pilot.
    lease_s: float = 90.0
    beat_s: float = 30.0
    #: Between two looks at what the run is told to do.
    look_s: float = 20.0
    #: Between two looks when nothing is free.
    idle_s: float = 5.0
    #: After so long a pilot takes no more cells.
    budget_s: float | None = None


class Done(NamedTuple):
    """One manifest row that was worked on."""

    row: int
    status: str
    #: The class of the error, if it failed.
    error: str
    #: The rows of the table, whatever the encoder takes.
    lines: Sequence[Any]


class Rows(Protocol):
    """Reads the manifest."""

    def read(self, start: int, stop: int) -> Sequence[Any]:
        """The rows of a range."""
        ...


class Runner(Protocol):
    """Works on rows."""

    def run(self, rows: Sequence[Any], stopping: Callable[[], bool]) -> Iterator[Done | None]:
        """Work on rows in any order; `None` whenever a moment has passed without a row being done.

        Once `stopping` says so, nothing new is begun, and what was begun is finished.

        Raises:
            BuoyError: nothing can go on: wrong credentials, no model. Faults of an input are not raised.
        """
        ...

    def killer(self, row: Any) -> Done:
        """The failed row of an object that nobody survives."""
        ...


class Ending(StrEnum):
    """Why a pilot or a coordinator left."""

    DONE = "done"
    STOPPED = "stopped"
    BUDGET = "budget"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    NO_SLOT = "no slot"
    SUPERSEDED = "superseded"
    ALONE = "nobody gives work"


class Pilot:
    """See the module.

    Args:
        name: unique, with a random part: engines start twins.
        encode: from what was done, in row order, to the bytes of an attempt.
        facts: what to tell of itself in heartbeats (host, pid, job).
        assigned: whether cells are given by the coordinator, since the store cannot be trusted.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        random: Random,
        runner: Runner,
        rows: Rows,
        *,
        name: str,
        encode: Callable[[Sequence[Done]], bytes],
        pace: Pace,
        facts: dict[str, Any] | None = None,
        assigned: bool = False,
    ) -> None:
        self.name = name
        self._ledger, self._clock, self._random = ledger, clock, random
        self._runner, self._rows, self._encode = runner, rows, encode
        self._pace, self._facts = pace, facts or {}
        self._control = Control(ledger)
        self._budget = Budget(ledger, beat_s=pace.beat_s / 2, look_s=pace.look_s)
        self._cells: Division = (
            Assigned(ledger, name)
            if assigned
            else Claimed(ledger, View(ledger, LeaseWatch(clock, pace.lease_s)), random, name)
        )
        self._recent: deque[str] = deque()
        #: How often each class of error is among those.
        self._failed: Counter[str] = Counter()
        self._began_s = self._beaten_s = self._looked_s = self._worked_s = float("-inf")
        self._stop = False
        self._doing: dict[str, Any] = {}
        self._sequence = self.done = self.wasted = 0
        self._longest_s = 0.0

    def stop(self) -> None:
        """Finish the items in hand, commit what is done, leave. May be called from a signal handler."""
        self._stop = True

    def run(self) -> Ending:
        """Work until there is a reason to leave.

        Raises:
            StoreError: the ledger cannot be read or written.
        """
        self._began_s = self._clock.monotonic()
        try:
            self._beat()
            order = self._control.look()
            if order.state != "running":  # the next look may tell otherwise, and we have no slot
                return Ending.CANCELLED if order.state == "cancelled" else Ending.PAUSED
            if not self._cells.enter(order.pilots, self._wait):
                return Ending.NO_SLOT
            return self._work()
        finally:
            self._leave()

    def _work(self) -> Ending:
        self._worked_s = self._clock.monotonic()
        while True:
            self._look()
            if (ending := self._ending()) is not None:
                return ending
            taken = self._cells.take()
            if taken is not None:
                self._take(*taken)
                self._doing = {}
                self._worked_s = self._clock.monotonic()
            elif self._cells.over():
                return Ending.DONE
            elif self._cells.waits_aloud and self._clock.monotonic() - self._worked_s > _ALONE * self._pace.lease_s:
                return Ending.ALONE
            else:
                self._wait()

    def _take(self, cell: Cell, epoch: int) -> None:
        """Work on a cell that is ours, and end it."""
        deaths = self._deaths(cell, epoch) if epoch > _HALVE_AFTER else 0
        began_s = self._clock.monotonic()
        self._doing = {"cell": cell.id, "epoch": epoch, "done": 0, "rows": cell.rows}
        if deaths >= _HALVE_AFTER and cell.rows > 1:
            self._cells.end(cell, epoch, halves(cell))
            return
        if deaths >= _GIVE_UP_AFTER:
            done = [self._runner.killer(row) for row in self._rows.read(cell.start, cell.stop)]
        else:
            done = self._run(cell, epoch)
        if not done:
            return
        stop = done[-1].row + 1
        failpoint.reach("pilot.attempt")
        try:
            attempt = self._store(cell, epoch, done, self._clock.monotonic() - began_s)
        except StoreError as error:
            if not error.full:
                raise
            self.wasted += len(done)
            self._pause(str(error))
            return
        failpoint.reach("pilot.stored")
        parts = [Part(cell.start, cell.stop, attempt)] if stop == cell.stop else split(cell, stop, attempt)
        if not self._cells.end(cell, epoch, parts):
            self.wasted += len(done)
        failpoint.reach("pilot.committed")
        self._longest_s = max(self._longest_s, self._clock.monotonic() - began_s)

    def _deaths(self, cell: Cell, epoch: int) -> int:
        """How many earlier claims ended without a word of their pilots; who says good-bye is not counted."""
        claims = self._ledger.read_many([claim_key(cell, each) for each in range(1, epoch)])
        pilots = [str(claim["pilot"]) for claim in claims if claim]
        byes = self._ledger.read_many([f"gone/{pilot}" for pilot in pilots])
        return sum(bye is None or bye["by"] != pilot for pilot, bye in zip(pilots, byes, strict=True))

    def _run(self, cell: Cell, epoch: int) -> list[Done]:
        """What was done of the cell without a gap from its start: all of it unless we are to stop."""
        rows = self._rows.read(cell.start, cell.stop)
        done: dict[int, Done] = {}
        try:
            for event in self._runner.run(rows, self._stopping):
                if event is not None:
                    done[event.row] = event
                    self.done += 1
                    self._doing["done"] = len(done)
                    failpoint.reach("pilot.item")
                    self._trip(event.error)
                self._look()
        except BuoyError as error:
            if error.retry or (isinstance(error, StoreError) and self._ledger_lost(error)):
                raise
            self._pause(str(error))
        whole: list[Done] = []
        while cell.start + len(whole) in done:
            whole.append(done[cell.start + len(whole)])
        self.wasted += len(done) - len(whole)
        return whole

    def _ledger_lost(self, error: StoreError) -> bool:
        """Whether the ledger does not answer either, so that nothing can be told there."""
        try:
            self._control.look()
        except StoreError:
            return True
        return False

    def _store(self, cell: Cell, epoch: int, done: Sequence[Done], seconds: float) -> Attempt:
        key = f"att/{cell.id}-{epoch:04d}-{self.name}-{self._ledger.nonce()[:8]}"
        stored = self._ledger.store(key, self._encode(done))
        return Attempt(
            key=stored.key,
            etag=stored.etag,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            counts=_count(each.status for each in done),
            classes=_count(each.error for each in done if each.error),
            lines=sum(len(each.lines) for each in done),
            seconds=round(seconds, 3),
            pilot=self.name,
        )

    def _trip(self, error: str) -> None:
        """Pause the run when more than half of the last objects failed in the same way as this one."""
        self._recent.append(error)
        self._failed[error] += 1
        if len(self._recent) > _BREAKER_WINDOW:
            self._failed[self._recent.popleft()] -= 1
        failed = self._failed[error]
        if not error or len(self._recent) < _BREAKER_LEAST or failed * 2 <= len(self._recent):
            return
        if not self._control.order.anyway:
            self._recent.clear()
            self._failed.clear()
            self._pause(f"{failed} of the last {_BREAKER_WINDOW} objects failed with {error}")

    def _pause(self, reason: str) -> None:
        if self._control.look().state == "running":
            self._control.give("paused", by=self.name, reason=reason)

    def _stopping(self) -> bool:
        return self._stop or self._control.order.state != "running"

    def _ending(self) -> Ending | None:
        order = self._control.order
        if order.state != "running":
            return Ending.CANCELLED if order.state == "cancelled" else Ending.PAUSED
        if self._stop:
            return Ending.STOPPED
        budget_s = self._pace.budget_s
        spent_s = self._clock.monotonic() - self._began_s
        if budget_s is not None and spent_s + 1.5 * self._longest_s >= budget_s:
            return Ending.BUDGET
        return None

    def _wait(self) -> bool:
        """Let a moment pass; `False` if there is a reason not to wait for anything any more."""
        self._clock.sleep(self._random.uniform(0.5, 1.0) * self._pace.idle_s * (0.25 if self._cells.waits_aloud else 1))
        if self._cells.waits_aloud and self._clock.monotonic() - self._beaten_s >= self._pace.idle_s:
            self._beat()
        self._look()
        return self._ending() is None

    def _look(self) -> None:
        """Beat, and see what the run is told to do, each when it is time for it."""
        now_s = self._clock.monotonic()
        if now_s - self._beaten_s >= self._pace.beat_s:
            self._beat()
        if now_s - self._looked_s >= self._pace.look_s:
            self._looked_s = now_s
            order = self._control.look()
            # One of them asks at a time, so that what a cap costs does not grow with the square of the pilots.
            ours = order.state == "running" and self._random.random() * order.pilots < 1
            if ours and (reason := self._budget.reached(order)):
                self._pause(reason)

    def _beat(self) -> None:
        self._beaten_s = self._clock.monotonic()
        self._sequence += 1
        record = {
            **self._facts,
            "sequence": self._sequence,
            "at": round(self._clock.wall(), 3),
            "age_s": round(self._beaten_s - self._began_s, 3),
            "done": self.done,
            "wasted": self.wasted,
            "requests": self._ledger.patience.requests,
            "retries": self._ledger.patience.retries,
            "causes": self._ledger.patience.causes,
            "ledger_s": round(self._ledger.patience.spent_s, 3),
            "doing": self._doing,
        }
        self._ledger.overwrite(f"hb/{self.name}", record)
        failpoint.reach("pilot.beat")

    def _leave(self) -> None:
        """Say that nobody needs to wait for us. If that fails too, the lease will tell."""
        try:
            self._beat()
            self._ledger.create(f"gone/{self.name}", {"by": self.name})
        except StoreError:
            return


def _count(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
