"""`buoy put`, `buoy jobs`, `buoy logs` against a running `buoy up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from buoy.fdl import SCRIPT
from support.gateway import Gateway, running
from support.tiny import make_model, picture_with_squares, png

PICTURE = png(picture_with_squares((0, 1), (2, 2), red=True))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    model = make_model(tmp_path_factory.mktemp("functions"))
    with running(tmp_path_factory.mktemp("up") / "data") as gateway:
        variables = {"BUOY_MODEL": str(model), "BUOY_INPUT": "tiny/input"}
        gateway.create("tiny", SCRIPT, environment={"Variables": variables}, memory="1Gi")
        gateway.create("plain", "echo from the script\nexit 5\n")
        yield gateway


def buoy(gateway: Gateway | None, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("buoy")), *map(str, words)]
    data = [] if gateway is None else ["--data", str(gateway.data)]
    return subprocess.run([*command, *data], capture_output=True, text=True, timeout=60, env={**os.environ, **env})


def files(folder: Path, **contents: bytes) -> list[Path]:
    found = []
    for name, content in contents.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content)
        found.append(path)
    return found


def test_put_and_wait_prints_a_line_for_each_result(gateway: Gateway, tmp_path: Path) -> None:
    ended = buoy(gateway, "put", "tiny", *files(tmp_path, a_png=PICTURE, b_png=PICTURE), "--wait")
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == ["a.png: red 1.00, red 1.00", "b.png: red 1.00, red 1.00"]
    assert ended.stderr == "2 done, 0 failed\n"


def test_put_the_same_again_is_answered_again(gateway: Gateway, tmp_path: Path) -> None:
    for _ in range(2):
        ended = buoy(gateway, "put", "tiny", *files(tmp_path, same_png=PICTURE), "--wait")
        assert (ended.returncode, ended.stdout) == (0, "same.png: red 1.00, red 1.00\n")


def test_put_with_failed_inputs_ends_with_3(gateway: Gateway, tmp_path: Path) -> None:
    ended = buoy(gateway, "put", "tiny", *files(tmp_path, bad_png=b"no picture", good_png=PICTURE), "--wait")
    assert ended.returncode == 3
    assert "bad.png: failed: " in ended.stdout
    assert "good.png: red" in ended.stdout
    plain = buoy(gateway, "put", "plain", *files(tmp_path, x_txt=b"x"), "--wait")
    assert plain.returncode == 3
    assert plain.stdout == "input/x.txt: failed: the script ended with exit code 5: from the script\n"


def test_put_as_json_is_a_record_a_line(gateway: Gateway, tmp_path: Path) -> None:
    ended = buoy(gateway, "put", "tiny", *files(tmp_path, j_png=PICTURE), "--wait", "--json")
    (record,) = map(json.loads, ended.stdout.splitlines())
    assert (record["key"], record["state"]) == ("input/j.png", "Succeeded")
    assert record["results"][0]["schema"] == "buoy.result/1"


def test_put_takes_more_files_than_a_page_of_jobs(gateway: Gateway, tmp_path: Path) -> None:
    many = files(tmp_path, **{f"{number}_png": PICTURE for number in range(120)})
    ended = buoy(gateway, "put", "tiny", *many, "--wait")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 120


def test_put_without_wait_returns_at_once(gateway: Gateway, tmp_path: Path) -> None:
    ended = buoy(gateway, "put", "tiny", *files(tmp_path, now_png=PICTURE))
    assert (ended.returncode, ended.stdout) == (0, "")
    gateway.finished(1, "tiny")


def test_put_of_two_files_of_one_name_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    both = [*files(tmp_path, x_png=PICTURE), *files(tmp_path / "deep", x_png=PICTURE)]
    ended = buoy(gateway, "put", "tiny", *both)
    assert ended.returncode == 2
    assert "several files are called x.png" in ended.stderr


def test_put_to_an_unknown_service_names_those_there_are(gateway: Gateway, tmp_path: Path) -> None:
    ended = buoy(gateway, "put", "whale", *files(tmp_path, x_png=PICTURE))
    assert ended.returncode == 1
    assert ended.stderr == "buoy: there is no service 'whale'; services: plain, tiny\n"


def test_jobs_and_logs_tell_what_happened(gateway: Gateway, tmp_path: Path) -> None:
    buoy(gateway, "put", "plain", *files(tmp_path, logged_txt=b"x"), "--wait")
    listed = buoy(gateway, "jobs", "plain", "--state", "Failed", "--json")
    job = json.loads(listed.stdout.splitlines()[0])
    assert job["key"] == "input/logged.txt"
    shown = buoy(gateway, "jobs", "plain")
    assert job["name"] in shown.stdout
    assert "exit code 5" in shown.stdout
    log = buoy(gateway, "logs", job["name"])
    assert log.stdout.startswith("from the script\n")
    missing = buoy(gateway, "logs", "none")
    assert (missing.returncode, missing.stderr) == (1, "buoy: there is no job 'none'\n")


def test_the_environment_can_name_the_gateway(gateway: Gateway) -> None:
    known = gateway.credentials
    env = {"BUOY_URL": f"{gateway.url}/", "BUOY_USER": known["username"], "BUOY_PASSWORD": known["password"]}
    assert buoy(None, "jobs", **env).returncode == 0
    refused = buoy(None, "jobs", **{**env, "BUOY_PASSWORD": "wrong"})
    assert refused.returncode == 2
    assert "not signed in" in refused.stderr


def test_without_a_gateway_it_is_one_line_with_a_hint(tmp_path: Path) -> None:
    ended = buoy(None, "jobs", "--data", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"buoy: no buoy runs in {tmp_path}; start it")
