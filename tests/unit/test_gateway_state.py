"""The queue's rules, on a real file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from buoy.errors import StoreError
from buoy.gateway.state import Job, NewJob, State
from buoy.store import Object


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


def new(name: str, key: str = "in/x", etag: str = "1", service: str = "fish", **more: object) -> NewJob:
    return NewJob(name, service, "sea", key, etag, 3, **more)  # type: ignore[arg-type]


def obj(key: str, etag: str = "1") -> Object:
    return Object("sea", key, 3, etag, 0.0)


def start(state: State, service: str = "fish") -> Job:
    job = state.next_pending(service)
    assert job is not None
    assert state.claim(job)
    return job._replace(attempt=job.attempt + 1)


def test_one_object_is_one_job_of_a_service(state: State) -> None:
    assert state.accept([new("a"), new("b"), new("c", etag="2"), new("d", service="other")]) == ["a", "c", "d"]
    assert state.accept([new("e")]) == []
    assert state.known("fish", "sea", "in/", "in/z") == {("in/x", "1"), ("in/x", "2")}


def test_racing_events_of_one_object_make_one_job(state: State) -> None:
    accepted: list[str] = []
    threads = [
        threading.Thread(target=lambda n=number: accepted.extend(state.accept([new(f"job-{n}")])))
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 1


def test_a_caller_who_waits_gets_a_run_of_his_own_and_goes_first(state: State) -> None:
    names = [new("event"), new("run-1", source="run"), new("run-2", source="run")]
    assert len(state.accept(names)) == 3
    assert [start(state).name for _ in range(3)] == ["run-1", "run-2", "event"]


def test_a_job_is_claimed_once(state: State) -> None:
    state.accept([new("a")])
    job = state.next_pending("fish")
    assert job is not None
    assert [state.claim(job), state.claim(job)] == [True, False]
    assert state.next_pending("fish") is None


def test_a_job_put_back_is_due_later_and_remembers_why(state: State) -> None:
    state.accept([new("a")])
    state.requeue(start(state), "the store is away", delay_s=60)
    assert state.next_pending("fish") is None
    job = state.job("a")
    assert job is not None
    assert (job.state, job.attempt, job.reason) == ("Pending", 1, "the store is away")


def test_a_job_to_run_alone_goes_first(state: State) -> None:
    state.accept([new("a"), new("b", "in/y")])
    first = start(state)
    state.requeue(first, "crashed", alone=True)
    found = state.next_pending("fish")
    assert found is not None
    assert (found.name, found.alone) == ("a", True)


def test_after_a_hard_stop_what_ran_is_pending_and_what_was_waited_for_failed(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    state.accept([new("a"), new("r", source="run"), new("b", "in/y")])
    start(state)
    start(state)
    state.close()
    again = State(tmp_path / "state.db")
    assert again.recover() == 1
    assert {job.name: job.state for job in again.jobs()} == {"a": "Pending", "b": "Pending", "r": "Failed"}
    again.close()


def test_written_objects_know_their_way_from_before_their_upload(state: State) -> None:
    state.accept([new("a", lineage=("first",))])
    job = start(state)
    state.begin_upload(job, [("sea", "out/x"), ("sea", "out/y")])
    assert state.lineage(obj("out/x", "any")) == ("first", "fish")  # in flight: its etag is not known yet
    state.finish(job, "Succeeded", outputs=[obj("out/x", "7")])
    assert state.lineage(obj("out/x", "7")) == ("first", "fish")
    assert state.lineage(obj("out/x", "8")) == ()  # a person put another one there
    assert state.lineage(obj("out/y", "7")) == ()  # it was not written after all
    assert [output.key for output in state.outputs([job.id])[job.id]] == ["out/x"]


def test_changes_are_numbered_without_gaps_or_ties_between_new_jobs(state: State) -> None:
    state.accept([new(str(number), f"in/{number}") for number in range(5)])
    job = start(state)
    numbers = [one.seq for one in state.changed_jobs(0)]
    assert len(set(numbers)) == 5
    assert state.changed_jobs(numbers[-2])[0].name == job.name
    assert state.seq == numbers[-1]


def test_the_sequence_goes_on_after_a_restart(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    state.accept([new("a"), new("b", "in/y")])
    last = state.seq
    state.close()
    again = State(tmp_path / "state.db")
    again.accept([new("c", "in/z")])
    assert [job.name for job in again.changed_jobs(last)] == ["c"]
    again.close()


def test_deleted_jobs_are_gone_from_lists_but_their_objects_stay_known(state: State) -> None:
    state.accept([new("good"), new("bad", "in/y"), new("waits", "in/z")])
    state.finish(start(state), "Succeeded")
    state.finish(start(state), "Failed", reason="no")
    assert state.hide("fish") == ["good"]
    assert set(state.hide("fish", every=True)) == {"bad", "waits"}
    assert state.jobs() == []
    assert state.next_pending("fish") is None
    assert state.accept([new("again")]) == []


def test_a_watcher_hears_of_every_commit_until_it_leaves(state: State) -> None:
    heard: list[int] = []
    leave = state.on_change(lambda: heard.append(state.seq))
    state.accept([new("a")])
    leave()
    state.accept([new("b", "in/y")])
    assert heard == [1]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        State(tmp_path / "none" / "state.db")
