"""The life of exposed services: started, stopped, replaced, multiplied, ended; nothing that was accepted is lost."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from support.exposed import Live, expose_model, expose_script
from support.gateway import Gateway, running, until
from support.tiny import make_model, picture_with_squares, png

PICTURE = png(picture_with_squares((1, 2)))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("up") / "data", "--idle", "1") as gateway:
        yield gateway


class Load:
    """Callers that ask again and again; every answer is noted."""

    def __init__(self, live: Live, path: str, callers: int = 4, **request: Any) -> None:
        self.seen: Counter[str] = Counter()
        self.answers = 0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(live, path), kwargs=request, daemon=True) for _ in range(callers)
        ]

    def _ask(self, live: Live, path: str, **request: Any) -> None:
        with live.client() as http:
            while not self._over.is_set():
                try:
                    answer = http.request(url=path, **({"method": "GET"} | request))
                    version = answer.json().get("version", "") if answer.status_code == 200 else answer.text
                    self.seen[f"{answer.status_code} {version}"] += 1
                except httpx2.HTTPError as error:
                    self.seen[repr(error)] += 1
                self.answers += 1

    def more(self, number: int) -> None:
        """Wait until so many more have been answered."""
        goal = self.answers + number
        until(lambda: self.answers >= goal, 60, lambda: self.seen)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


@contextmanager
def held(live: Live, number: int, folder: Path) -> Iterator[None]:
    """So many requests that the service holds; released at the end."""
    release = folder / "release"

    def ask() -> None:
        with live.client() as http:
            http.get("/hold", params={"until": str(release)})

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        release.touch()
        for thread in threads:
            thread.join(60)


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_it_stops_starts_and_restarts(gateway: Gateway) -> None:
    live = expose_script(gateway, "operated")
    live.is_in("ready", 1)
    pids = live.pids()
    assert live.operate("stop").json()["state"] == "stopped"
    until(lambda: gone(pids))
    with live.client() as http:
        refused = http.get("/x")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        assert refused.json()["error"]["hint"] == "start it: POST /system/services/operated/start"
        assert live.operate("start").status_code == 200
        first = http.get("/slow?s=0").json()["pid"]
        with Load(live, "/slow?s=0.02") as load:
            load.more(4)
            assert live.operate("restart").status_code == 200
            until(lambda: http.get("/slow?s=0").json()["pid"] != first)
            load.more(4)
    assert set(load.seen) == {"200 "}
    until(lambda: gone([first]))
    with gateway.client() as http:
        assert http.post("/system/services/none/stop").status_code == 404
    gateway.create("plain")
    assert Live(gateway, {"name": "plain", "token": ""}).operate("stop").status_code == 400


def test_a_new_definition_takes_over_under_load_without_a_failed_request(gateway: Gateway) -> None:
    live = expose_script(gateway, "replaced", variables={"VERSION": "1"})
    with live.client() as http, Load(live, "/slow?s=0.02") as load:
        load.more(8)
        expose_script(gateway, "replaced", update=True, variables={"VERSION": "2"})
        until(lambda: http.get("/slow?s=0").json()["version"] == "2")
        load.more(8)
        live.is_in("ready", 1)
    assert set(load.seen) == {"200 1", "200 2"}


def test_a_model_is_replaced_under_load_without_a_failed_request(gateway: Gateway, tmp_path: Path) -> None:
    live = expose_model(gateway, "model-live", make_model(tmp_path / "one"), max_scale=1)
    request = {"method": "POST", "content": PICTURE, "headers": {"Content-Type": "image/png"}}
    live.is_in("ready", 1)
    with live.client() as http, Load(live, "/predict", callers=2, **request) as load:
        load.more(8)
        other = make_model(tmp_path / "two", version="2.0")
        expose_model(gateway, "model-live", other, update=True, max_scale=1)
        until(lambda: http.get("/v2/models/tiny").json()["versions"] == ["2.0"])
        load.more(8)
    assert set(load.seen) == {"200 "}


def test_a_crash_costs_its_own_request_and_the_next_is_answered(gateway: Gateway) -> None:
    live = expose_script(gateway, "crashing")
    with live.client() as http:
        first = http.get("/slow?s=0").json()["pid"]
        lost = http.get("/crash")
        assert lost.status_code == 502
        assert lost.json()["error"]["class"] == "Unavailable"
        assert int(lost.headers["retry-after"]) >= 1
        assert http.get("/slow?s=0").json()["pid"] != first
    assert "ended with exit code 7" in live.log()
    assert live.status()["state"] == "ready"


def test_what_does_not_start_says_why_and_is_tried_again(gateway: Gateway) -> None:
    live = expose_script(gateway, "broken", "#!/bin/sh\necho 'no fish today' >&2\nexit 3\n")
    found = live.is_in("failed")
    assert found["reason"] == "it ended with exit code 3: no fish today"
    with live.client() as http:
        refused = http.get("/x")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "no fish today" in refused.json()["error"]["message"]
    expose_script(gateway, "broken", update=True)
    with live.client() as http:
        assert http.get("/slow?s=0").status_code == 200


def test_instances_come_with_the_queue_and_leave_when_idle(gateway: Gateway, tmp_path: Path) -> None:
    live = expose_script(gateway, "scaled", max_scale=2, fields={"cpu": "0.5"})
    live.is_in("ready", 1)
    with held(live, 12, tmp_path):
        live.is_in("ready", 2)
    live.is_in("ready", 1)


def test_refusals_bring_another_instance(gateway: Gateway) -> None:
    """`buoy serve` refuses rather than let a queue grow: what it says reaches the caller, and help is on its way."""
    live = expose_script(gateway, "refusing", max_scale=2, fields={"cpu": "0.5"})
    live.is_in("ready", 1)
    with live.client() as http, Load(live, "/busy", callers=1):
        refused = http.get("/busy")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        live.is_in("ready", 2)


def test_there_are_never_more_instances_than_the_machine_has_room_for(gateway: Gateway, tmp_path: Path) -> None:
    live = expose_script(gateway, "greedy", max_scale=50, fields={"cpu": "1000"})
    live.is_in("ready", 1)
    with held(live, 20, tmp_path):
        live.is_in("ready", 2)  # the one that has to be, and one that has the whole machine
        for _ in range(20):
            assert live.status()["active_instances"] <= 2
            time.sleep(0.1)


def test_an_instance_with_an_open_stream_stays(gateway: Gateway) -> None:
    live = expose_script(gateway, "streaming", min_scale=0)
    with live.client() as http, http.stream("GET", "/forever") as stream:
        lines = stream.iter_lines()
        end_s = time.monotonic() + 3.0  # three times as long as an idle instance may stay
        while time.monotonic() < end_s:
            assert next(lines) is not None
    until(lambda: live.status()["active_instances"] == 0)


def test_from_zero_the_first_request_starts_one(gateway: Gateway) -> None:
    live = expose_script(gateway, "from-zero", min_scale=0)
    assert (live.is_in("ready")["active_instances"], live.status()["reason"]) == (
        0, "the first request starts an instance",
    )  # fmt: skip
    with live.client() as http:
        assert http.get("/slow?s=0").status_code == 200
    assert live.status()["active_instances"] == 1
    until(lambda: live.status()["active_instances"] == 0)


def test_a_service_that_keeps_a_state_is_never_there_twice(gateway: Gateway, tmp_path: Path) -> None:
    """Two of them would watch the same cameras: the old one ends first, and callers wait for the new one."""
    live = expose_script(gateway, "keeping", max_scale=2, fields={"cpu": "0.5"}, variables={"VERSION": "1"})
    with live.client() as http, ExitStack() as stack:
        assert http.get("/keep").status_code == 200
        most = Watching(live, stack)
        with held(live, 12, tmp_path):
            time.sleep(2.0)  # twice as long as a queue may stand before there is another instance
        with Load(live, "/slow?s=0.02") as load:
            load.more(4)
            expose_script(
                gateway, "keeping", update=True, max_scale=2, fields={"cpu": "0.5"}, variables={"VERSION": "2"}
            )
            until(lambda: load.seen["200 2"])
            load.more(4)
    assert set(load.seen) == {"200 1", "200 2"}
    assert most.most == 1


def test_a_camera_outlives_everything_and_is_watched_once(tmp_path: Path) -> None:
    """The stream of a real model: kept over a hard stop, and its service is not multiplied under load."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    spec = {"name": "pier", "source": str(pictures), "policy": "file"}
    with running(tmp_path / "data", "--idle", "1") as gateway, ExitStack() as stack:
        live = expose_model(gateway, "watching", make_model(tmp_path), min_scale=0)
        with live.client() as http:
            made = http.post("/streams", json=spec)
            assert (made.status_code, made.json()["kept"]) == (201, True)
        gateway.kill9()
        gateway.start()
        live.is_in("ready", 1)  # although none has to be there: nobody asks, but somebody has to look
        (pictures / "a.png").write_bytes(PICTURE)
        watching = Watching(live, stack)
        request = {"method": "POST", "content": PICTURE, "headers": {"Content-Type": "image/png"}}
        with live.client() as http, Load(live, "/predict", callers=8, **request):
            until(lambda: http.get("/streams/pier").json()["counts"]["processed"] == 1)
            time.sleep(2.0)  # twice as long as a queue may stand, or an instance be idle
            assert [stream["name"] for stream in http.get("/streams").json()["streams"]] == ["pier"]
        assert live.status()["active_instances"] == 1
        assert watching.most == 1


class Watching:
    """Looks all the time how many processes of a service there are."""

    def __init__(self, live: Live, stack: ExitStack) -> None:
        self.most = 0
        self._live, self._over = live, threading.Event()
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._over.set)

    def _look(self) -> None:
        while not self._over.wait(0.01):
            alive = [pid for pid in self._live.pids() if psutil.pid_exists(pid)]
            self.most = max(self.most, len(alive))


def test_a_deleted_service_ends_and_its_data_goes_when_it_is_to(gateway: Gateway) -> None:
    live = expose_script(gateway, "deleted")
    with live.client() as http, gateway.client() as admin:
        assert http.get("/keep").status_code == 200
        pids = live.pids()
        assert admin.delete("/system/services/deleted?delete_data=true").status_code == 204
        until(lambda: gone(pids))
        missing = http.get("/x")
        assert (missing.status_code, missing.json()["error"]["class"]) == (404, "MissingError")
    until(lambda: not (gateway.data / "exposed" / "deleted").exists())


def test_memory_above_what_was_asked_for_ends_an_instance_with_the_reason(gateway: Gateway) -> None:
    script = "#!/usr/bin/env python3\nimport time\nhoard = bytearray(200 << 20)\ntime.sleep(60)\n"
    live = expose_script(gateway, "hungry", script, fields={"memory": "64Mi"})
    until(lambda: "over its memory" in live.log())
    with gateway.client() as http:
        http.delete("/system/services/hungry")


def test_after_a_hard_stop_nothing_is_left_and_what_was_stopped_stays_so(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        runs, stopped = expose_script(gateway, "runs"), expose_script(gateway, "stopped")
        model = expose_model(gateway, "model-live", make_model(tmp_path))
        for live in (runs, stopped, model):
            live.is_in("ready", 1)
        stopped.operate("stop")
        pids = [*runs.pids(), *model.pids()]
        children = [child.pid for child in psutil.Process(model.pids()[0]).children(recursive=True)]
        assert children
        gateway.kill9()
        gateway.start()
        until(lambda: gone([*pids, *children]))
        runs.is_in("ready", 1)
        assert stopped.status()["state"] == "stopped"


def test_an_orderly_stop_finishes_what_was_accepted(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        live = expose_script(gateway, "slow")
        live.is_in("ready", 1)
        answers: list[int] = []

        def ask() -> None:
            with live.client() as http:
                answers.append(http.get("/slow?s=1.5").status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        pids = live.pids()
        with live.client() as http, http.stream("GET", "/forever") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "data: 0"
            time.sleep(0.3)  # the request is on its way
            assert gateway.stop() == 0
            assert list(lines)  # the stream ended in order, it was not cut
        asking.join(60)
        assert answers == [200]
        assert gone(pids)
        assert not os.listdir(gateway.data / "work")
