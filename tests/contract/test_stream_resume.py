"""Folders and videos go on where they were, whatever ends: the model's process, its version, the service."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from support.hosted import write_video
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png, set_version

PICTURES = 30
#: When the first picture was taken and the newest: series show the latest two days.
_FIRST_S = float(int(time.time()) - 7200)
_LAST_S = _FIRST_S + 3600
LAST = datetime.fromtimestamp(_LAST_S, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
#: Pictures of tests stand still and are dark, which would be no observation.
PLAIN = {"dark_below": 0, "frozen_after_s": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"), slow=True)


@functools.cache
def large_png(column: int) -> bytes:
    """Decoding it takes some ten milliseconds, so that there is a middle to be interrupted in."""
    return png(np.kron(picture_with_squares((1, column)), np.ones((28, 28, 1), np.uint8)))


def large_frame(number: int) -> NDArray[np.uint8]:
    """As `large_png`, of a video."""
    return np.kron(picture_with_squares((1, number % 4)), np.ones((12, 12, 1), np.uint8))


class Scene:
    """A folder of pictures or a video, one stream over it with a sink, and what has become of each picture."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.source = home / "pictures"
        self.out = home / "out"
        self.options: tuple[str, ...] = ("--data", str(home / "data"))

    def fill(
        self, first: int = 0, count: int = PICTURES, *, changed_s: float = _FIRST_S, in_order: bool = False
    ) -> None:
        """Write pictures, a second apart; by default those with high numbers are older, so names tell no order."""
        self.source.mkdir(exist_ok=True)
        for number in range(first, first + count):
            at_s = changed_s + (number if in_order else -number)
            part = self.home / "part.png"
            part.write_bytes(large_png(number % 4))
            os.utime(part, (at_s, at_s))
            part.rename(self.source / f"{number:03}.png")

    def add_last(self, number: int = PICTURES) -> None:
        """One more, newer than all others: when it has been seen, every picture that came twice has been, too."""
        self.fill(number, 1, changed_s=_LAST_S + number)

    def film(self, frames: int) -> None:
        """A video instead."""
        self.source = write_video(self.home / "dive.mp4", frames, picture=large_frame)

    def spec(self, **more: Any) -> dict[str, Any]:
        sinks = [{"kind": "bucket", "to": str(self.out)}]
        return {"name": "reef", "source": str(self.source), "sinks": sinks, **PLAIN, **more}

    def configure(self, **more: Any) -> None:
        """In the operator's file instead of over the API."""
        (path := self.home / "streams.yaml").write_text(yaml.safe_dump([self.spec(**more)]))
        self.options = ("--data", str(self.home / "data"), "--streams", str(path))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Records in the bucket."""
        lines = [json.loads(each) for path in self.out.rglob("*.jsonl") for each in path.read_bytes().splitlines()]
        return [line for line in lines if "input" in line]

    @property
    def names(self) -> list[str]:
        """Of the pictures in the bucket, a row each."""
        return sorted(row["input"]["name"] for row in self.rows)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def view(http: httpx2.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/streams/reef").json()
    return found


def processed(http: httpx2.Client) -> int:
    return int(view(http)["counts"]["processed"])


def frames(http: httpx2.Client) -> int:
    """The effort of all windows."""
    rows = http.get("/streams/reef/series", params={"window": "60"}).json()["rows"]
    return sum(row["frames"] for row in rows if row["taxon"] == "bright")


def balances(http: httpx2.Client) -> bool:
    counts = view(http)["counts"]
    return bool(counts["received"] == counts["processed"] + sum(counts["dropped"].values()) + counts["in_flight"])


def kill_child(served: Served) -> None:
    (child,) = served.children
    os.kill(child, signal.SIGKILL)
    served.until(lambda: served.children not in ([], [child]))


def reach(served: Served, http: httpx2.Client, count: int, whole: int = PICTURES) -> None:
    """Wait until so many have been looked at, which is to be somewhere in the middle."""
    served.until(lambda: processed(http) >= count)
    with served.held():
        assert processed(http) < whole, "it was too fast to be interrupted"


def names_of(count: int) -> list[str]:
    return [f"{number:03}.png" for number in range(count)]


def make(http: httpx2.Client, scene: Scene, **more: Any) -> None:
    assert http.post("/streams", json=scene.spec(**more)).status_code == 201


def test_a_folder_goes_on_after_each_crash_of_the_models_process(model: Path, scene: Scene) -> None:
    scene.fill()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        make(http, scene)
        for count in (6, 15):
            reach(served, http, count)
            kill_child(served)
        served.until(lambda: processed(http) >= PICTURES)
        kill_child(served)
        scene.add_last()
        served.until(lambda: view(http)["latest"]["captured"] == LAST)
        assert (processed(http), frames(http)) == (PICTURES + 1, PICTURES + 1)
        assert balances(http)
    assert scene.names == names_of(PICTURES + 1)
    numbers = [row["input"]["frame"]["number"] for row in scene.rows]
    assert sorted(numbers) == list(range(PICTURES + 1))


def test_without_a_data_folder_a_crash_is_survived_too(model: Path, scene: Scene) -> None:
    scene.fill()
    with serving(scene.home, model) as served, served.client() as http:
        make(http, scene)
        reach(served, http, 6)
        kill_child(served)
        scene.add_last()
        served.until(lambda: processed(http) > PICTURES)
        assert frames(http) == PICTURES + 1
    assert scene.names == names_of(PICTURES + 1)


@pytest.mark.parametrize("origin", ["file", "api"])
def test_a_folder_goes_on_when_the_service_is_started_again(model: Path, scene: Scene, origin: str) -> None:
    scene.fill()
    if origin == "file":
        scene.configure()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        if origin == "api":
            make(http, scene)
        reach(served, http, 6)
        assert served.stop() == 0
    done = len(scene.names)
    assert 6 <= done < PICTURES
    scene.fill(PICTURES, 3, changed_s=_FIRST_S - 3600)  # came meanwhile, and is older than all that were seen
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        served.until(lambda: processed(http) >= PICTURES + 3 - done)
        assert served.stop() == 0
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        scene.add_last(PICTURES + 3)
        served.until(lambda: processed(http) == 1)
        assert frames(http) == PICTURES + 4
    assert scene.names == names_of(PICTURES + 4)


def test_a_killed_service_loses_nothing_and_counts_once(model: Path, scene: Scene) -> None:
    scene.fill()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        make(http, scene)
        reach(served, http, 6)
        served.process.kill()
        served.process.wait()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        scene.add_last()
        served.until(lambda: view(http)["latest"] is not None and view(http)["latest"]["captured"] == LAST)
        assert frames(http) == PICTURES + 1
    assert sorted(set(scene.names)) == names_of(PICTURES + 1)


def test_a_new_version_of_the_model_goes_on_where_the_old_one_was(scene: Scene) -> None:
    model = make_model(scene.home, slow=True)
    scene.fill()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        make(http, scene)
        for version, count in (("2.0", 4), ("3.0", 12)):
            reach(served, http, count)
            set_version(model, version)
            with served.held():  # what it is looking at comes when another has taken its place
                assert http.post("/v2/repository/models/tiny/load").json()["version"] == version
        scene.add_last()
        served.until(lambda: view(http)["latest"]["captured"] == LAST)
        assert (processed(http), frames(http)) == (PICTURES + 1, PICTURES + 1)
        assert balances(http)
    assert scene.names == names_of(PICTURES + 1)
    assert len({row["model"]["version"] for row in scene.rows}) >= 2


def test_one_picture_in_so_many_seconds_stays_that_over_crashes(model: Path, scene: Scene) -> None:
    """Those that were left out are not taken for new ones: each third of ninety that are a second apart."""
    scene.fill(0, 90, in_order=True)
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        make(http, scene, every_s=3)
        for count in (5, 12, 20):
            reach(served, http, count)
            kill_child(served)
        scene.add_last(90)
        served.until(lambda: view(http)["latest"]["captured"] == LAST)
        assert (processed(http), frames(http)) == (31, 31)
    assert scene.names == [f"{number:03}.png" for number in range(0, 91, 3)]


@pytest.mark.parametrize("how", ["crash", "restart"])
def test_a_video_goes_on_in_the_middle(model: Path, scene: Scene, how: str) -> None:
    scene.film(60)
    scene.configure()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        reach(served, http, 10, 60)
        if how == "restart":
            assert served.stop() == 0
        else:
            kill_child(served)
            reach(served, http, 30, 60)
            kill_child(served)
            served.until(lambda: view(http)["state"] == "ended")
            assert (processed(http), frames(http)) == (60, 60)
            assert balances(http)
    if how == "restart":
        with serving(scene.home, model, options=scene.options) as served, served.client() as http:
            served.until(lambda: view(http)["state"] == "ended")
            assert frames(http) == 60
    found = sorted((row["input"]["frame"] for row in scene.rows), key=lambda frame: frame["number"])
    assert [frame["number"] for frame in found] == list(range(60))
    assert [frame["position_s"] for frame in found] == [pytest.approx(at / 25, abs=1e-3) for at in range(60)]


def test_a_finished_video_of_the_operators_file_begins_again_only_when_it_is_configured_otherwise(
    model: Path, scene: Scene
) -> None:
    scene.film(20)
    scene.configure()
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        served.until(lambda: view(http)["state"] == "ended")
        served.process.kill()  # its end is not left to the next save
        served.process.wait()
    for _ in range(2):
        with serving(scene.home, model, options=scene.options) as served, served.client() as http:
            assert (view(http)["state"], view(http)["counts"]["received"], frames(http)) == ("ended", 0, 20)
            assert http.get("/streams/reef/gaps").json()["gaps"] == []
            assert served.stop() == 0
    assert len(scene.rows) == 20
    scene.configure(station="pier")
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        served.until(lambda: view(http)["state"] == "ended" and processed(http) == 20)
        assert frames(http) == 20  # not those of before as well
    assert len(scene.rows) == 40
    assert (scene.home / "data" / "history" / "reef.json.before").exists()


def test_a_stream_that_is_made_again_under_its_name_begins_at_the_beginning(model: Path, scene: Scene) -> None:
    scene.fill(0, 5)
    with serving(scene.home, model, options=scene.options) as served, served.client() as http:
        for _ in range(2):
            make(http, scene)
            served.until(lambda: processed(http) == 5)
            assert http.delete("/streams/reef").status_code == 204
    assert scene.names == sorted(2 * names_of(5))
