"""The real coordinator and pilots on a played store and a played clock: one seed, one order of events.

Every process is a thread, but only one runs at a time: it hands the baton on at each call of the store and at each
sleep, to a thread that the seed chooses. Time stands still while anybody can run, and then jumps to whoever wakes
first. What can go wrong goes wrong by the seed too: see `Faults`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import msgspec

from buoy.batch.area import Area
from buoy.batch.control import Control
from buoy.batch.coordinator import Coordinator
from buoy.batch.fit import Fit
from buoy.batch.layout import PLAN, Cell
from buoy.batch.ledger import Ledger
from buoy.batch.pilot import Done, Ending, Pace, Pilot
from buoy.batch.seal import Seal
from buoy.errors import BuoyError, ExistsError, MissingError, StoreError
from buoy.store import Object, Page

__all__ = ["Faults", "Outcome", "World", "play", "trace"]

#: Of the 3 s leases of the played runs: long pauses are longer than that.
PACE = Pace(lease_s=3.0, beat_s=0.7, look_s=0.7, idle_s=0.5)


class Killed(BaseException):
    """The process is no more."""


class Stuck(AssertionError):
    """The run does not come to its end."""


@dataclass(frozen=True)
class Faults:
    """Chances of each fault, for a call of the store or for the world."""

    refused: float = 0.0
    #: The call has its effect, and its reply is lost.
    unheard: float = 0.0
    #: The effect comes later than the error that the caller gets.
    late: float = 0.0
    #: The put arrives twice, the second time later.
    twice: float = 0.0
    #: A listing is behind by up to so many changes.
    behind: int = 0
    #: The process stands still for longer than its lease.
    stalled: float = 0.0
    killed: float = 0.0
    #: An object of the ledger or an attempt vanishes.
    vanishes: float = 0.0
    #: Create-only puts overwrite.
    conditions_ignored: bool = False
    #: The coordinator knows it, and gives the work.
    assigned: bool = False
    twins: bool = False
    coordinators: int = 1
    #: The engine can tell which pilots have ended.
    tells_dead: bool = True
    #: This row kills whoever works on it.
    poison: int = -1
    #: A person pauses, resumes at random moments.
    meddled: bool = False
    #: A person stops pilots with a signal.
    signalled: bool = False
    #: So many a person orders, and so many fit.
    pilots: int = 3
    #: After so long a pilot takes no more cells.
    budget_s: float | None = None


@dataclass
class Version:
    step: int
    data: bytes | None
    etag: str


@dataclass
class Task:
    name: str
    body: Callable[[], Any]
    thread: threading.Thread | None = None
    baton: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    wakes_s: float = 0.0
    over: bool = False
    doomed: bool = False
    offset_s: float = 0.0
    result: Any = None
    error: BaseException | None = None


class World:
    """The scheduler, the clock and the store."""

    #: A run that takes more is stuck.
    most_steps, until_s = 60_000, 3000.0

    def __init__(self, seed: int, faults: Faults) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.now_s = 0.0
        self.steps = 0
        self.tasks: list[Task] = []
        self.live: list[Task] = []
        self.current: Task | None = None
        self.finished = threading.Event()
        self.failure: BaseException | None = None
        self.objects: dict[str, list[Version]] = {}
        self.overwritten: set[str] = set()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.vanished: list[str] = []
        #: What the runs of items were: (pilot, row).
        self.looked: list[tuple[str, int]] = []
        #: The pilots that are at work, and how many of them there were at most.
        self.at_work: set[str] = set()
        self.most_at_work = 0
        #: The pilots that took a cell and never had a slot.
        self.slotless: list[str] = []
        #: The world turns nice at last, so that every run can come to its end.
        self.calm_s = 120.0

    # Tasks

    def start(self, name: str, body: Callable[[], Any]) -> Task:
        task = Task(name, body, offset_s=self.random.uniform(-1e5, 1e5))
        task.wakes_s = self.now_s
        task.thread = threading.Thread(target=self._run, args=(task,), daemon=True)
        self.tasks.append(task)
        self.live.append(task)
        task.thread.start()
        return task

    def _run(self, task: Task) -> None:
        task.baton.acquire()
        try:
            if self.failure is None:
                task.result = task.body()
        except Killed:
            task.doomed = True
        except BuoyError as error:
            task.error = error
        except BaseException as error:
            self.failure = self.failure or error
        task.over = True
        self.live.remove(task)
        self._hand_on()

    def _hand_on(self) -> None:
        following = self._next()
        if following is None:
            self.finished.set()
        else:
            self.current = following
            following.baton.release()

    def _next(self) -> Task | None:
        self.steps += 1
        if not self.live:
            return None
        if self.failure is None and (self.steps > self.most_steps or self.now_s > self.until_s):
            who = [f"{task.name} until {task.wakes_s:.1f}" for task in self.live]
            self.failure = Stuck(f"after {self.steps} steps and {self.now_s:.0f} s: {who}")
        ready = [task for task in self.live if task.wakes_s <= self.now_s]
        if not ready:
            self.now_s = min(task.wakes_s for task in self.live)
            ready = [task for task in self.live if task.wakes_s <= self.now_s]
        return ready[self.random.randrange(len(ready))]

    def give_way(self, seconds: float = 0.0) -> None:
        """Let others run, for no time or for some."""
        task = self.current
        assert task is not None
        task.wakes_s = self.now_s + seconds
        following = self._next()
        assert following is not None
        if following is not task:
            self.current = following
            following.baton.release()
            task.baton.acquire()
        if self.failure is not None or task.doomed:
            raise Killed
        while self.later and self.later[0][0] <= self.now_s:
            self.later.pop(0)[1]()

    def run(self) -> None:
        self._hand_on()
        self.finished.wait()
        for task in self.tasks:
            if task.thread is not None:
                task.thread.join()
        if self.failure is not None:
            raise self.failure

    def kill(self, task: Task) -> None:
        task.doomed = True
        task.wakes_s = self.now_s

    # Clock, as the current task sees it

    def monotonic(self) -> float:
        return self.now_s + (self.current.offset_s if self.current else 0.0)

    def wall(self) -> float:
        return 1e9 + self.monotonic()

    def sleep(self, seconds: float) -> None:
        self.give_way(max(seconds, 1e-6))

    # Store: the part of the interface that a run uses

    def put(self, bucket: str, key: str, body: bytes | Path | BinaryIO, *, create_only: bool = False) -> Object:
        assert isinstance(body, bytes)
        return self._call(lambda: self._put(key, body, create_only), changes=True)

    def get(
        self, bucket: str, key: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: str = ""
    ) -> bytes:
        return self._call(lambda: self._there(key).data[start:stop])  # type: ignore[index]

    def stat(self, bucket: str, key: str, *, version: str = "") -> Object:
        return self._call(lambda: self._object(key, self._there(key)))

    def list(self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000) -> Page:
        return self._call(lambda: self._list(prefix, after))

    def _call(self, effect: Callable[[], Any], changes: bool = False) -> Any:
        self.give_way()
        assert self.current is not None
        calm = self.now_s > self.calm_s or self.current.name == "person"
        random, faults = self.random, self.faults
        if calm:
            return effect()
        self._disturb()
        if random.random() < faults.refused:
            raise StoreError("refused", retry=True)
        if changes and random.random() < faults.late:
            self._later(effect)
            raise StoreError("late", retry=True)
        if changes and random.random() < faults.twice:
            self._later(effect)
        result = effect()
        self._disturb()
        if random.random() < faults.unheard:
            raise StoreError("unheard", retry=True)
        return result

    def _later(self, effect: Callable[[], Any]) -> None:
        def quietly() -> None:
            try:
                effect()
            except StoreError:
                return

        self.later.append((self.now_s + self.random.choice([0.0, 0.3, 2.0, 6.0]), quietly))
        self.later.sort(key=lambda each: each[0])

    def _disturb(self) -> None:
        random, faults = self.random, self.faults
        if random.random() < faults.killed:
            assert self.current is not None
            self.current.doomed = True
            raise Killed
        if random.random() < faults.stalled:
            self.give_way(random.uniform(1.0, 3.0) * PACE.lease_s)
        if random.random() < faults.vanishes:
            kinds = ("fin/", "claim/", "att/", "new/", "hb/", "gone/", "slot/", "ctl/", "coord/")
            there = sorted(key for key, versions in self.objects.items() if versions[-1].data is not None)
            if victims := [key for key in there if key.startswith(kinds)]:
                victim = random.choice(victims)
                self.objects[victim].append(Version(self.steps, None, ""))
                self.vanished.append(victim)

    def _put(self, key: str, body: bytes, create_only: bool) -> Object:
        versions = self.objects.setdefault(key, [])
        there = bool(versions) and versions[-1].data is not None
        if there and create_only and not self.faults.conditions_ignored:
            raise ExistsError(f"{key} is there already")
        if there and versions[-1].data != body:
            self.overwritten.add(key)
        versions.append(Version(self.steps, body, hashlib.md5(body).hexdigest()))
        return self._object(key, versions[-1])

    def _there(self, key: str) -> Version:
        versions = self.objects.get(key)
        if not versions or versions[-1].data is None:
            raise MissingError(f"there is no {key}")
        return versions[-1]

    def _list(self, prefix: str, after: str) -> Page:
        behind = self.random.randint(0, self.faults.behind) if self.now_s <= self.calm_s else 0
        found = []
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                seen = [each for each in self.objects[key] if each.step <= self.steps - behind]
                if seen and seen[-1].data is not None:
                    found.append(self._object(key, seen[-1]))
        return Page(found, "")

    def _object(self, key: str, version: Version) -> Object:
        assert version.data is not None
        return Object("run", key, len(version.data), version.etag, 0.0)


class PlayedRows:
    def read(self, start: int, stop: int) -> Sequence[int]:
        return range(start, stop)


class PlayedRunner:
    """Looks at a row for a while; every tenth row is a failed one."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def run(self, rows: Sequence[Any], stopping: Callable[[], bool]) -> Iterator[Done | None]:
        for row in rows:
            if stopping():
                return
            self._world.sleep(self._world.random.choice([0.0, 0.1, 0.1, 0.3, 1.0]))
            if self._world.random.random() < 0.2:
                yield None
            self._world.looked.append((self._name, row))
            if row == self._world.faults.poison:
                task = self._world.current
                assert task is not None
                task.doomed = True
                raise Killed
            yield result_of(row)

    def killer(self, row: Any) -> Done:
        return Done(row, "failed", "JobError", ["killer"])


def result_of(row: int) -> Done:
    failed = row % 10 == 9
    return Done(row, "failed" if failed else "ok", "InputError" if failed else "", [f"row {row}"])


def encode(done: Sequence[Done]) -> bytes:
    return json.dumps([[each.row, each.status, each.lines] for each in done]).encode()


class PlayedPilot(Pilot):
    """Is at work from when it has its slot, or takes a cell without one, until it leaves or is killed."""

    def __init__(self, world: World, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._world = world

    def _work(self) -> Ending:
        if self._control.order.state == "running":
            self._is_at_work()
        try:
            return super()._work()
        finally:
            self._world.at_work.discard(self.name)

    def _take(self, cell: Cell, epoch: int) -> None:
        self._is_at_work()
        slots = [versions[0].data for key, versions in self._world.objects.items() if key.startswith("slot/")]
        if not any(data and json.loads(data)["pilot"] == self.name for data in slots):
            self._world.slotless.append(self.name)
        super()._take(cell, epoch)

    def _is_at_work(self) -> None:
        self._world.at_work.add(self.name)
        self._world.most_at_work = max(self._world.most_at_work, len(self._world.at_work))


class PlayedEngine:
    def __init__(self, game: Game) -> None:
        self._game = game

    def submit(self, number: int) -> None:
        self._game.asked.append(number)
        for _ in range(number * (2 if self._game.world.faults.twins else 1)):
            self._game.start_pilot()

    def alive(self) -> int:
        return sum(not task.over for task in self._game.pilots.values())

    def fit(self) -> Fit:
        return Fit(self._game.world.faults.pilots)

    def dead(self, names: Sequence[str]) -> list[str]:
        pilots = self._game.pilots
        if not self._game.world.faults.tells_dead:
            return []
        return [name for name in names if name in pilots and pilots[name].over]

    def trouble(self) -> str:
        return ""

    def wait(self, seconds: float) -> None:
        self._game.world.sleep(seconds)

    def cancel(self) -> None:
        for task in self._game.pilots.values():
            self._game.world.kill(task)


class Game:
    """One run from its plan to its results."""

    def __init__(self, seed: int, faults: Faults, bounds: Sequence[int]) -> None:
        self.world = World(seed, faults)
        self.area = Area(self.world, "run")  # type: ignore[arg-type]
        self.bounds = list(bounds)
        self.pilots: dict[str, Task] = {}
        self.running: dict[str, Pilot] = {}
        self.coordinators: list[Task] = []
        self.results: list[bytes] = []
        self.damaged: list[BuoyError] = []
        #: For how many pilots the engine was asked, each time.
        self.asked: list[int] = []
        self.pace = msgspec.structs.replace(PACE, budget_s=faults.budget_s)

    def ledger(self, patience_s: float = 20.0) -> Ledger:
        return Ledger(self.area, self.world, self.world.random, patience_s=patience_s, parallel=1)

    def start_pilot(self) -> None:
        name = f"pilot-{len(self.pilots)}"
        pilot = PlayedPilot(
            self.world, self.ledger(), self.world, self.world.random, PlayedRunner(self.world, name), PlayedRows(),
            name=name, encode=encode, pace=self.pace, assigned=self.world.faults.assigned,
        )  # fmt: skip
        self.running[name] = pilot
        self.pilots[name] = self.world.start(name, pilot.run)

    def start_coordinator(self) -> None:
        coordinator = Coordinator(
            self.ledger(), self.world, self.world.random, PlayedEngine(self),
            name=f"coordinator-{len(self.coordinators)}", rows=self.bounds[-1], pace=self.pace, finish=self._finish,
            assigns=self.world.faults.assigned,
        )  # fmt: skip
        self.coordinators.append(self.world.start("coordinator", coordinator.run))

    def _finish(self, seal: Seal) -> dict[str, Any]:
        ledger = self.ledger()
        rows = [json.loads(ledger.load(leaf.attempt.key)) for leaf in seal.leaves]
        self.results.append(json.dumps([row for each in rows for row in each]).encode())
        return {"seal": seal.digest}

    def operate(self) -> None:
        """The person: starts the run, and again whenever nobody coordinates it."""
        world = self.world
        ledger = Ledger(self.area, world, world.random, patience_s=1e9, parallel=1)
        ledger.create(PLAN, {"bounds": self.bounds})
        control = Control(ledger)
        control.give("running", by="person", pilots=world.faults.pilots)
        for _ in range(world.faults.coordinators):
            self.start_coordinator()
        while True:
            world.sleep(world.random.uniform(0.5, 4.0))
            if any(task.over and task.result is Ending.DONE for task in self.coordinators):
                return
            if self._broken():
                return
            self._meddle(control)
            if all(task.over for task in self.coordinators):
                if control.look().state == "paused":
                    control.give("running", by="person")
                self.start_coordinator()

    def _broken(self) -> bool:
        errors = [task.error for task in self.coordinators if task.error is not None]
        self.damaged = [error for error in errors if isinstance(error, BuoyError) and not error.retry]
        return bool(self.damaged)

    def _meddle(self, control: Control) -> None:
        world = self.world
        if world.now_s > world.calm_s:
            return
        if world.faults.meddled and world.random.random() < 0.3:
            control.give(world.random.choice(["paused", "running"]), by="person")
        if world.faults.signalled and world.random.random() < 0.3:
            alive = [name for name, task in self.pilots.items() if not task.over]
            if alive:
                self.running[world.random.choice(alive)].stop()


@dataclass
class Outcome:
    """What is left when everybody has gone."""

    area: Area
    objects: dict[str, bytes]
    results: list[bytes]
    damaged: list[BuoyError]
    world: World
    endings: dict[str, Any]
    #: For how many pilots the engine was asked, each time.
    asked: list[int]


def play(seed: int, faults: Faults, bounds: Sequence[int] = (0, 4, 7, 9, 10)) -> Outcome:
    """Play one run to its end. The same arguments give the same run."""
    game = Game(seed, faults, bounds)
    world = game.world
    world.start("person", game.operate)
    world.run()
    objects = {
        key: versions[-1].data for key, versions in world.objects.items() if versions and versions[-1].data is not None
    }
    endings = {name: task.result for name, task in game.pilots.items()}
    return Outcome(game.area, objects, game.results, game.damaged, world, endings, game.asked)


def trace(outcome: Outcome) -> str:
    """A hash of all that was stored and looked at, and when."""
    world = outcome.world
    stored = [(key, each.step, str(each.data)) for key, versions in world.objects.items() for each in versions]
    told = [stored, world.looked, world.steps, world.now_s, outcome.asked, list(outcome.endings.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
