"""`buoy serve` when things go wrong: too much, too slow, cut off, killed, asked to end."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest

from buoy import Model
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "tmp").mkdir()
    options = ("--max-wait", "30", "--callers", "2")
    with serving(folder, model, options=options, TMPDIR=str(folder / "tmp")) as served:
        yield served


@pytest.fixture(scope="module")
def batching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("batching")
    model = make_model(folder, batch="n", run={"callers": 1, "threads": 2, "batch": 4})
    with serving(folder, model, options=("--max-wait", "30")) as served:
        yield served


@pytest.fixture(scope="module")
def heavy() -> bytes:
    """A picture that keeps a lane busy for a while: 12 megapixels of noise."""
    noise = np.random.default_rng(1).integers(0, 255, (3000, 4000, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes()


def together(number: int, ask: Callable[[int], httpx2.Response]) -> list[httpx2.Response]:
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(ask, range(number)))


def half_a_request(served: Served, data: bytes, announced: int) -> socket.socket:
    connection = socket.create_connection(served.address, timeout=60)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {announced}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("how", ["served", "batching"])
def test_each_caller_gets_its_own_answer_while_others_leave(
    how: str, request: pytest.FixtureRequest, model: Path
) -> None:
    served: Served = request.getfixturevalue(how)
    chance = random.Random(5)
    shapes = [(chance.randrange(16, 400), chance.randrange(16, 400)) for _ in range(12)]
    pictures = []
    for number, (height, width) in enumerate(shapes):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[: height // 2, : width * (number % 4 + 1) // 4] = 255
        pictures.append(png(pixels))
    known = Model.load(model)
    expected = [known.predict(data, name=str(number)) for number, data in enumerate(pictures)]

    def come_and_go(stop: threading.Event) -> None:
        while not stop.wait(0.005):
            with half_a_request(served, GOOD, len(GOOD)):  # whole, but nobody waits for the answer
                pass

    stop = threading.Event()
    leaver = threading.Thread(target=come_and_go, args=(stop,))
    leaver.start()
    try:
        with served.client() as http:
            for _ in range(5):
                answers = together(
                    len(pictures),
                    lambda at: http.post("/predict", content=pictures[at], params={"name": str(at)}, headers=JPEG),
                )
                for data, result, answer in zip(pictures, expected, answers, strict=True):
                    assert answer.status_code == 200, answer.text
                    found = answer.json()
                    assert found["input"]["sha256"] == hashlib.sha256(data).hexdigest()
                    assert found["input"]["name"] == result.input.name
                    assert [tuple(each["box"]) for each in found["detections"]] == [
                        each.box for each in result.detections or []
                    ]
    finally:
        stop.set()
        leaver.join()
    served.until(lambda: served.metric("nv_inference_pending_request_count") == 0)


def test_too_many_are_told_when_to_come_back(tmp_path: Path, model: Path, heavy: bytes) -> None:
    with serving(tmp_path, model, options=("--callers", "1", "--max-wait", "0.05")) as served, served.client() as http:
        http.post("/predict", content=heavy, headers=JPEG).raise_for_status()  # from now on a turn has been measured
        os.kill(served.children[0], signal.SIGSTOP)  # until somebody has been refused
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(http.post, "/predict", content=heavy, headers=JPEG) for _ in range(16)]
            served.until(lambda: any(each.done() for each in asked))
            os.kill(served.children[0], signal.SIGCONT)
            answers = [each.result() for each in asked]
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["class"] == "BusyError"
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200


def test_what_waited_beyond_its_deadline_is_not_looked_at(tmp_path: Path, model: Path, heavy: bytes) -> None:
    with serving(tmp_path, model, options=("--callers", "1", "--max-wait", "30")) as served, served.client() as http:
        short = {"X-Deadline-Ms": "30", **JPEG}

        def ask(number: int) -> httpx2.Response:
            return http.post("/predict", content=heavy if number else GOOD, headers=JPEG if number % 2 else short)

        with ThreadPoolExecutor(9) as pool, served.held():
            asked = [pool.submit(ask, number) for number in range(9)]
            served.until(lambda: any(each.done() for each in asked))
        answers = [each.result() for each in asked]
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) <= {200, 429, 504}
        assert statuses[429] + statuses[504] >= 1
        for answer in answers:
            if answer.status_code != 200:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["class"] in ("BusyError", "DeadlineError")
        assert served.metric("nv_inference_request_success") == statuses[200]


def test_a_killed_worker_costs_what_it_was_looking_at_and_no_more(served: Served, heavy: bytes) -> None:
    restarts = served.metric("buoy_worker_restarts_total")
    (child,) = served.children
    with served.client() as http, ThreadPoolExecutor(12) as pool:
        with served.held():
            asked = [pool.submit(http.post, "/predict", content=heavy, headers=JPEG) for _ in range(12)]
            served.until(lambda: served.metric("nv_inference_pending_request_count") >= 6)
            os.kill(child, signal.SIGKILL)
        answers = [each.result() for each in asked]
        failed = [answer for answer in answers if answer.status_code != 200]
        assert 1 <= len(failed) <= 4  # two lanes, and two pictures that were waiting beside them
        for answer in failed:
            assert answer.status_code == 500
            assert answer.json()["error"]["class"] == "JobError"
            assert "SIGKILL" in answer.json()["error"]["message"]
            assert answer.json()["error"]["hint"]
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200
    assert served.metric("buoy_worker_restarts_total") == restarts + 1
    assert served.children != [child]


def test_what_was_accepted_is_finished_before_it_ends(tmp_path: Path, model: Path, heavy: bytes) -> None:
    with serving(tmp_path, model, options=("--max-wait", "30")) as served, ThreadPoolExecutor(9) as pool:
        child = served.children[0]

        def ask() -> httpx2.Response:
            with served.client() as http:
                return http.post("/predict", content=heavy, headers=JPEG)

        os.kill(child, signal.SIGSTOP)  # until all are accepted
        asked = [pool.submit(ask) for _ in range(8)]
        served.until(lambda: served.metric("nv_inference_pending_request_count") >= 8)
        os.kill(child, signal.SIGTERM)  # as when a whole unit is told to end
        served.process.send_signal(signal.SIGTERM)
        os.kill(child, signal.SIGCONT)
        assert served.process.wait(40) == 0
        assert [each.result().status_code for each in asked] == [200] * 8
        with pytest.raises(httpx2.ConnectError):
            ask()
        assert not Path(f"/proc/{child}").exists()


def test_it_is_not_ready_as_soon_as_it_is_asked_to_end(tmp_path: Path, model: Path, heavy: bytes) -> None:
    with serving(tmp_path, model, options=("--max-wait", "30")) as served, ThreadPoolExecutor(4) as pool:
        with served.client() as http:
            os.kill(served.children[0], signal.SIGSTOP)  # until it is asked to end
            asked = [pool.submit(http.post, "/predict", content=heavy, headers=JPEG) for _ in range(4)]
            served.until(lambda: served.metric("nv_inference_pending_request_count") >= 4)
            half = half_a_request(served, b"", 10)  # its head is being read: not accepted, since nothing has come
            served.process.send_signal(signal.SIGTERM)
            os.kill(served.children[0], signal.SIGCONT)
            seen = set()
            for _ in range(50):
                try:
                    seen.add(httpx2.get(f"{served.url}/v2/health/ready").status_code)
                except httpx2.TransportError:
                    break
            assert seen <= {503}
            half.close()
            assert [each.result().status_code for each in asked] == [200] * 4
        assert served.process.wait(40) == 0


def test_bodies_that_are_cut_off_leave_nothing_behind(served: Served) -> None:
    before = len(served.open_files())
    for announced in (len(GOOD), 5 << 20):
        for _ in range(20):
            half_a_request(served, GOOD[:40] + b"x" * (0 if announced < 1 << 20 else 2 << 20), announced).close()
    served.until(lambda: served.metric("buoy_uploads_open") == 0 and len(served.open_files()) <= before)
    served.until(lambda: any(line.get("status") == 499 for line in served.log))
    with served.client() as http:
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200


def test_slow_clients_hold_no_lane(served: Served) -> None:
    slow = [half_a_request(served, GOOD[:40], len(GOOD)) for _ in range(20)]
    try:
        served.until(lambda: served.metric("buoy_uploads_open") == 20)
        assert served.metric("nv_inference_pending_request_count") == 0
        with served.client() as http:
            assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200
        slow[0].sendall(GOOD[40:])
        assert slow[0].recv(15) == b"HTTP/1.1 200 OK"
    finally:
        for connection in slow:
            connection.close()
    served.until(lambda: served.metric("buoy_uploads_open") == 0)


@pytest.mark.slow
def test_heads_and_bodies_that_never_end_are_given_up(served: Served) -> None:
    """Waits for the ten seconds that the service waits."""
    with (
        half_a_request(served, GOOD[:40], len(GOOD)) as body,
        socket.create_connection(served.address, timeout=60) as head,
        socket.create_connection(served.address, timeout=60) as silent,
    ):
        head.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert body.recv(12) == b"HTTP/1.1 408"
        assert head.recv(1) == b""
        assert silent.recv(1) == b""
