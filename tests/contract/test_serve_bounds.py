"""What clients can make `buoy serve` hold: answers that nobody takes, bodies in memory, work that comes too late."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest

from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
JPEG = {"Content-Type": "image/jpeg"}
MIB = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture
def served(model: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, model, options=("--callers", "1", "--max-wait", "30", "--max-upload", "8")) as served:
        yield served


@pytest.fixture(scope="module")
def heavy() -> bytes:
    """Twelve megapixels of noise: drawn as PNG they are 36 MB, and keep a lane for about a second."""
    noise = np.random.default_rng(1).integers(0, 255, (3000, 4000, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes()


def ask(served: Served, path: str, body: bytes, *fields: str, announced: int = 0) -> socket.socket:
    """Send a request and read nothing; a body of which more is `announced` stays half a body."""
    connection = socket.create_connection(served.address, timeout=60)
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {announced or len(body)}", *fields])
    connection.sendall(f"{head}\r\n\r\n".encode() + body)
    return connection


def take_slowly(connection: socket.socket) -> tuple[bytes, int]:
    """Read an answer to its end within about 25 s: its head, and the number of bytes that followed it."""
    head, _, body = connection.recv(16 << 10, socket.MSG_WAITALL).partition(b"\r\n\r\n")
    received = len(body)
    while piece := connection.recv(MIB, socket.MSG_WAITALL):
        received += len(piece)
        time.sleep(0.7)
    return head.lower(), received


@pytest.mark.slow
def test_a_client_that_takes_nothing_of_its_answer_is_cut_off_and_a_slow_one_is_not(
    served: Served, heavy: bytes
) -> None:
    """Waits for the fifteen seconds that the service waits, and longer for the slow one."""
    before = len(served.open_files())
    asked = ("/predict", heavy, "Content-Type: image/jpeg", "Accept: image/png")
    with ExitStack() as stack:
        silent = [stack.enter_context(ask(served, *asked)) for _ in range(2)]
        # Further requests on the same connection, whose answers wait for the first to be taken.
        silent[1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        slow = stack.enter_context(ask(served, *asked))
        with ThreadPoolExecutor(1) as pool:
            head, received = pool.submit(take_slowly, slow).result()
        assert f"content-length: {received}\r\n".encode() in head + b"\r\n"
        assert received > 20 * MIB
        served.until(lambda: len(served.open_files()) <= before)
        for connection in silent:
            taken = 0
            try:
                while piece := connection.recv(MIB):
                    taken += len(piece)
            except ConnectionResetError:
                pass
            assert taken < received  # it is not there any more
    with served.client() as http:
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200


def peak_bytes(served: Served) -> int:
    """The most memory that the service itself has had, without its inference processes."""
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def tensor(picture: bytes) -> tuple[bytes, dict[str, str]]:
    """A request of the Open Inference Protocol with the picture in binary, and its header."""
    parameters = {"binary_data_size": len(picture)}
    given = {"name": "image", "datatype": "UINT8", "shape": [len(picture)], "parameters": parameters}
    head = json.dumps({"inputs": [given]}).encode()
    return head + picture, {"Inference-Header-Content-Length": str(len(head))}


def test_bodies_that_are_parsed_as_a_whole_have_a_limit_together(served: Served) -> None:
    path, before, peak = "/v2/models/tiny/infer", len(served.open_files()), peak_bytes(served)
    with ExitStack() as stack, served.client() as http:
        # Each is within its own limit; all of them would be 420 MiB.
        opened = [ask(served, path, bytes(7 * MIB), announced=7 * MIB + 10) for _ in range(60)]
        for connection in opened:
            stack.enter_context(connection)
        refused, _, _ = select.select(opened, [], [], 5)
        assert len(refused) >= 50
        for connection in refused:
            answer = connection.recv(4096).lower()
            assert answer.startswith(b"http/1.1 429")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b"are in memory" in answer
        assert http.post("/predict", content=GOOD, headers=JPEG).status_code == 200
        assert peak_bytes(served) - peak < 120 * MIB
    served.until(lambda: served.metric("buoy_uploads_open") == 0 and len(served.open_files()) <= before)
    assert served.metric("buoy_refused_total", reason="BusyError") >= 50
    with served.client() as http:  # those that were refused, or cut off, hold nothing any more
        assert http.post(path, content=bytes(7 * MIB)).status_code == 400


def test_what_a_body_held_is_given_back_when_it_is_parsed(served: Served) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (1500, 1500, 3), np.uint8)
    picture = cv2.imencode(".png", noise)[1].tobytes()
    assert 6 * MIB < len(picture) < 8 * MIB
    body, header = tensor(picture)
    with served.client() as http, ThreadPoolExecutor(8) as pool:
        found = http.post("/predict", content=picture, headers=JPEG).json()["detections"]
        assert http.post("/v2/models/tiny/infer", content=b"x" * 7 * MIB).status_code == 400
        with served.held():  # all of them wait at once: in memory they would be more than is allowed
            asked = []
            for number in range(8):
                asked.append(pool.submit(http.post, "/v2/models/tiny/infer", content=body, headers=header))
                served.until(lambda number=number: served.metric("nv_inference_pending_request_count") > number)
        for answer in [each.result() for each in asked]:
            assert answer.status_code == 200, answer.text
            outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
            assert outputs["scores"] == [each["score"] for each in found]
    assert not [name for name in served.open_files() if "deleted" in name]


def dropped(served: Served) -> float:
    return served.metric("nv_inference_request_failure", reason="DeadlineError")


def check_late(answers: list[httpx2.Response]) -> None:
    for answer in answers:
        assert answer.status_code == 504, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["class"] == "DeadlineError"


def test_what_is_late_before_the_inference_process_reads_it_is_not_looked_at(served: Served) -> None:
    with served.client() as http, ThreadPoolExecutor(5) as pool:

        def late(number: int) -> httpx2.Response:
            return http.post("/predict", content=GOOD, headers={"X-Deadline-Ms": "300", **JPEG})

        with served.held():
            asked = [pool.submit(late, number) for number in range(4)]
            served.until(
                lambda: any(each.done() for each in asked)
            )  # the one for which there is no room in the process
            patient = pool.submit(http.post, "/predict", content=GOOD, headers=JPEG)
            served.until(lambda: served.metric("nv_inference_pending_request_count") == 4)
            assert sum(each.done() for each in asked) == 1
        check_late([each.result() for each in asked])
        assert patient.result().status_code == 200
    assert served.metric("nv_inference_count") == 1
    assert dropped(served) == 4
    assert served.metric("nv_inference_pending_request_count") == 0


def test_what_is_late_behind_another_picture_is_not_looked_at(served: Served, heavy: bytes) -> None:
    with served.client() as http, ThreadPoolExecutor(3) as pool:
        long = pool.submit(http.post, "/predict", content=heavy, headers={"Accept": "image/png", **JPEG})
        served.until(lambda: served.metric("nv_inference_pending_request_count") == 1)
        short = {"X-Deadline-Ms": "30", **JPEG}
        asked = [pool.submit(http.post, "/predict", content=GOOD, headers=short) for _ in range(2)]
        check_late([each.result() for each in asked])
        assert long.result().status_code == 200
    assert served.metric("nv_inference_count") == 1
    assert dropped(served) == 2
