"""The load generator of the bench: a figure is worth what counted it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from bench.book import Book, quantile
from bench.serve.load import Plan, Seen
from support.need import CHECKOUT

Answer = Callable[[int], tuple[int, dict[str, str]]]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[int, list[int]]]:
    """Answers each request as the function of its number says; gives the port and the sizes of the bodies."""
    sizes: list[int] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                sizes.append(len(body))
                number = len(sizes) - 1
            status, headers = answer(number)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield running.server_address[1], sizes
        finally:
            running.shutdown()
            thread.join()


def generate(tmp_path: Path, port: int, **more: object) -> Seen:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"x" * 300_000)
    plan = Plan(
        host="127.0.0.1", port=port, path="/predict", kind="image/jpeg", pictures=[str(picture)], **more,  # type: ignore[arg-type]
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bench.serve.load"],
        input=msgspec.json.encode(plan), capture_output=True, timeout=60, check=True, cwd=CHECKOUT / "tests",
    )  # fmt: skip
    return msgspec.json.decode(done.stdout, type=Seen)


def test_a_closed_loop_sends_whole_pictures_and_counts_every_answer(tmp_path: Path) -> None:
    with server(lambda number: (200, {})) as (port, sizes):
        seen = generate(tmp_path, port, seconds=0.6, clients=3, warm_s=0.1)
    assert set(sizes) == {300_000}
    assert seen.sent == len(sizes) == seen.statuses["200"] == len(seen.begun_ms)
    assert seen.connections == 3
    assert seen.rate > 0


def test_an_open_loop_sends_what_was_planned_however_late_the_answers_are(tmp_path: Path) -> None:
    def slowly(number: int) -> tuple[int, dict[str, str]]:
        time.sleep(0.3)
        return 200, {}

    with server(slowly) as (port, sizes):
        seen = generate(tmp_path, port, seconds=1.0, rate=40.0)
    assert seen.sent == len(sizes) == 40
    assert seen.connections > 5
    assert seen.due_ms[0] >= 300
    assert len(seen.late_ms) == 40


def test_refusals_are_told_apart_from_answers_and_their_header_is_looked_for(tmp_path: Path) -> None:
    def every_other(number: int) -> tuple[int, dict[str, str]]:
        return (429, {"Retry-After": "1"} if number % 4 == 1 else {}) if number % 2 else (200, {})

    with server(every_other) as (port, _):
        seen = generate(tmp_path, port, seconds=1.0, rate=20.0)
    assert seen.statuses == {"200": 10, "429": 10}
    assert len(seen.refused_ms) == 10
    assert seen.refused_without_retry_after == 5


def test_who_is_not_answered_in_time_is_given_up_and_the_next_is_asked_for(tmp_path: Path) -> None:
    over = threading.Event()

    def first_hangs(number: int) -> tuple[int, dict[str, str]]:
        if number == 0:
            over.wait(20)
        return 200, {}

    with server(first_hangs) as (port, sizes):
        seen = generate(tmp_path, port, seconds=0.5, rate=10.0, patience_s=1.0, next_patience_s=20.0)
        over.set()
    assert seen.statuses == {"given up": 1, "200": 4}
    assert len(sizes) == 6
    assert seen.next_ms is not None


def test_a_connection_that_the_server_has_closed_is_made_anew(tmp_path: Path) -> None:
    with server(lambda number: (200, {"Connection": "close"})) as (port, _):
        seen = generate(tmp_path, port, seconds=0.5, rate=20.0)
    assert seen.statuses == {"200": 10}
    with server(lambda number: (0, {})) as (port, _):
        assert generate(tmp_path, port, seconds=0.2, rate=10.0).statuses == {"broken": 2}


def test_goals_are_met_or_missed(capsys: pytest.CaptureFixture[str]) -> None:
    book = Book()
    book.add("rate", "buoy", 1.19, "x", goal=">= 1.2")
    book.add("time", "buoy", 0.2, "s", goal="<= 0.2")
    book.ratios("peak", {"plain": [10.0, 20.0, 10.0], "buoy": [15.0, 24.0, 14.0]}, "plain", {"buoy": ">= 1.3"})
    assert [entry.met for entry in book.entries] == [False, True, True]
    assert book.entries[2].value == 1.4
    assert book.entries[2].spread == (1.2, 1.5)
    assert "MISSED" in capsys.readouterr().out
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
