"""Who runs when: cores, memory, fairness."""

from __future__ import annotations

from buoy.gateway.services import Service, service_from
from buoy.gateway.slots import AHEAD, Slots


def service(name: str, cpu: str = "1", memory: str = "100Mi") -> Service:
    return service_from({"name": name, "script": "true", "cpu": cpu, "memory": memory}, token="t")


def slots(cpu_milli: int = 2000, memory_mib: int = 1000, workers: int | None = None) -> Slots:
    return Slots(cpu_milli=cpu_milli, memory_bytes=memory_mib << 20, workers=workers)


def fill(slots: Slots, one: Service, *, warm: bool = False) -> int:
    """Start jobs of one service until it has to wait."""
    number = 0
    while slots.pick([(number, one, warm)]) is one:
        slots.take(one)
        number += 1
    return number


def test_cores_memory_and_workers_each_limit_what_runs_at_once() -> None:
    assert fill(slots(), service("a")) == 2
    assert fill(slots(), service("a", cpu="0.5")) == 4
    assert fill(slots(), service("a", cpu="0.1", memory="300Mi")) == 3
    assert fill(slots(workers=1), service("a", cpu="0.1")) == 1


def test_a_job_larger_than_the_machine_runs_alone() -> None:
    here, large, small = slots(), service("large", cpu="64", memory="1Ti"), service("small", cpu="0.1")
    assert here.lanes(large) == 1
    here.take(large)
    assert here.pick([(1, small, False)]) is None
    here.give(large)
    here.take(small)
    assert here.pick([(1, large, False)]) is None


def test_a_worker_gets_jobs_ahead_that_use_no_core() -> None:
    here, warm = slots(), service("warm")
    assert fill(here, warm, warm=True) == 2 + AHEAD
    for _ in range(AHEAD + 1):
        here.give(warm)
    assert here.pick([(1, service("other"), False)]) is not None


def test_the_service_that_uses_least_is_next_and_age_decides_between_equals() -> None:
    here, busy, idle, older = slots(), service("busy", cpu="0.5"), service("idle"), service("older")
    here.take(busy)
    assert here.pick([(1, busy, False), (9, idle, False), (5, older, False)]) is older


def test_a_backlog_does_not_refill_ahead_of_a_service_that_waits() -> None:
    here, long, short = slots(), service("long"), service("short")
    fill(here, long, warm=True)
    due = [(1, long, True), (99, short, False)]
    here.give(long)
    assert here.pick(due) is None
    for _ in range(AHEAD):
        here.give(long)
    assert here.pick(due) is short


def test_a_large_job_is_not_overtaken_for_ever() -> None:
    here, large, small = slots(), service("large", cpu="2"), service("small", cpu="1")
    here.take(small)
    assert here.pick([(1, large, False), (2, small, False)]) is None
    here.give(small)
    assert here.pick([(1, large, False), (2, small, False)]) is large
