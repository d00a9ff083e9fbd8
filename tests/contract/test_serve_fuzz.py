"""Bytes that no client means: heads, forms and framings made up or damaged at random, from a fixed seed."""

from __future__ import annotations

import random
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png

GOOD = png(picture_with_squares((0, 0), (2, 3)))
BOUNDARY = b"----a7f3"
NOISE = (b"\x00", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b":", b";", b'"', b"=", b"--", b"\xff\xfe", b"%00", b"\t",
         b"A" * 9000, b"\xc3\x28", b"boundary=", b"filename*=UTF-8''%FF", b"chunked", b"-1",
         b"99999999999999999999")  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "tmp").mkdir()
    model = make_model(tmp_path_factory.mktemp("functions"))
    with serving(folder, model, options=("--max-upload", "2"), TMPDIR=str(folder / "tmp")) as served:
        yield served


def form(*parts: tuple[bytes, bytes], end: bytes = b"--") -> bytes:
    """A body of parts, each with its headers and its content."""
    lines = [b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts]
    return b"".join(lines) + b"--" + BOUNDARY + end + b"\r\n"


def whole(body: bytes, *headers: bytes, path: bytes = b"/predict", length: bool = True) -> bytes:
    """A request as it should be."""
    head = [b"POST " + path + b" HTTP/1.1", b"Host: x", *headers]
    head += [b"Content-Length: %d" % len(body)] * length
    return b"\r\n".join(head) + b"\r\n\r\n" + body


FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"'
KIND = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY
REQUESTS = {
    "raw": whole(GOOD, b"Content-Type: image/png"),
    "form": whole(form((FILE, GOOD)), KIND),
    "two parts": whole(form((b'Content-Disposition: form-data; name="x"', b"1"), (FILE, GOOD)), KIND),
    "nested": whole(form((FILE + b"\r\nContent-Type: multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n--b--")), KIND),
    "tensors": whole(b'{"inputs": []}', b"Content-Type: application/json", path=b"/v2/models/tiny/infer"),
    "pieces": whole(b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), b"Content-Type: image/png",
                    b"Transfer-Encoding: chunked", length=False),
    "get": b"GET /v2/models/tiny HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
}  # fmt: skip


def damaged(chance: random.Random, data: bytes) -> bytes:
    """With one to three faults: cut, overwritten, doubled, or with noise between."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:  # the head is where most is decided
            at = min(at, chance.randrange(1, 300))
        kind = chance.randrange(5)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + chance.choice(NOISE) + data[at:]
        elif kind == 2:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif kind == 3:
            end = at + chance.randrange(60)
            data = data[:end] + data[at:end] + data[end:]
        else:
            data = data[:at] + data[at + chance.randrange(40) :]
        data = data or b"\r\n"
    return data


def answers_to(served: Served, data: bytes, *, patience_s: float = 20.0) -> bytes:
    """What comes back on a connection of its own.

    `patience_s` is for the first byte of an answer; short where none is needed, since the service may wait for more.
    """
    with socket.create_connection(served.address, timeout=60) as connection:
        send(connection, data)
        return collect([connection], patience_s)


def send(connection: socket.socket, data: bytes) -> None:
    with suppress(ConnectionResetError, BrokenPipeError):  # refused while we were still sending
        connection.sendall(data)


def collect(connections: list[socket.socket], patience_s: float) -> bytes:
    """All that comes, until nothing has come for a while or every connection is closed."""
    found, left = b"", list(connections)
    while left and (readable := select.select(left, [], [], 0.25 if found else patience_s)[0]):
        for connection in readable:
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                piece = b""
            found += piece
            if not piece:
                left.remove(connection)
    return found


def statuses(answer: bytes) -> set[bytes]:
    return set(re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer))


def is_well(served: Served) -> None:
    """Nothing is left of what was sent, no fault was logged, and a good picture is answered."""
    served.until(lambda: served.metric("buoy_uploads_open") == 0)
    served.until(lambda: served.metric("nv_inference_pending_request_count") == 0)
    assert not [line for line in served.log if line["event"] == "fault"]
    assert served.metric("buoy_worker_restarts_total") == 0
    with served.client() as http:
        answer = http.post("/predict", content=GOOD, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert len(answer.json()["detections"]) == 2


@pytest.mark.parametrize("name", REQUESTS)
def test_the_undamaged_request_is_answered(served: Served, name: str) -> None:
    expected = {"nested": b"422", "tensors": b"400"}.get(name, b"200")
    assert statuses(answers_to(served, REQUESTS[name])) == {expected}


def test_damaged_requests_are_refused_and_leave_nothing_behind(served: Served) -> None:
    chance = random.Random(11)
    is_well(served)
    before, memory = sorted(served.open_files()), resident_kib(served)
    seen: set[bytes] = set()
    for _ in range(30):
        open_ = [socket.create_connection(served.address, timeout=60) for _ in range(50)]
        for connection in open_:
            send(connection, damaged(chance, chance.choice(list(REQUESTS.values()))))
        # pictures take longer than refusals, so what comes is waited for
        seen |= statuses(collect(open_, 20.0))
        for connection in open_:
            connection.close()
    assert {b"200", b"400", b"404", b"422"} <= seen, seen
    assert not {status for status in seen if status >= b"500"}, seen
    is_well(served)
    served.until(lambda: len(served.open_files()) <= len(before))
    assert sorted(served.log_path.with_name("tmp").glob("tmp*")) == []
    assert resident_kib(served) < memory + 50 * 1024


def resident_kib(served: Served) -> int:
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"multipart/form-data", form((FILE, GOOD))),
        (b"multipart/form-data; boundary=", form((FILE, GOOD))),
        (b"multipart/form-data; boundary=other", form((FILE, GOOD))),
        (b"multipart/form-data; boundary=" + b"x" * 5000, form((FILE, GOOD))),
        (b"multipart/mixed; boundary=" + BOUNDARY, form((FILE, GOOD))),
        (KIND[14:], form((FILE, GOOD), end=b"")),
        (KIND[14:], form((FILE, GOOD))[:-40]),
        (KIND[14:], b""),
        (KIND[14:], form()),
        (KIND[14:], form((FILE, b""))),
        (KIND[14:], form((FILE, GOOD), (FILE, GOOD))),
        (KIND[14:], form((b'Content-Disposition: form-data; name="other"; filename="a"', GOOD))),
        (KIND[14:], form((b'Content-Disposition: form-data; name="file"', GOOD))),
        (KIND[14:], form((b"X: " + b"y" * 200_000, GOOD))),
        (KIND[14:], form(*[(b'Content-Disposition: form-data; name="x"', b"1")] * 20_000)),
        (KIND[14:], b"--" + BOUNDARY + b"\r\n" + b"A" * 500_000),
        (KIND[14:], b"--" + BOUNDARY * 20_000),
    ],
)
def test_wrong_forms_are_told(served: Served, kind: bytes, body: bytes) -> None:
    answer = answers_to(served, whole(body, b"Content-Type: " + kind))
    assert statuses(answer) <= {b"400", b"413", b"415", b"422"}, answer[:300]
    assert statuses(answer)
    assert b'"hint"' in answer
    is_well(served)


@pytest.mark.parametrize(
    ("head", "allowed"),
    [
        (b"GET /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 12_000, {b"400", b"431"}),
        (b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 300_000 + b"\r\n", {b"400", b"431"}),
        (b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\n", {b"400", b"414", b"431"}),
        (b"GET /v2 HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % at for at in range(20_000)), {b"400", b"431"}),
    ],
)
def test_heads_without_measure_are_cut_off(served: Served, head: bytes, allowed: set[bytes]) -> None:
    assert statuses(answers_to(served, head + b"Host: x\r\n\r\n")) <= allowed
    is_well(served)


@pytest.mark.parametrize(
    "headers",
    [
        (b"Content-Length: -1",), (b"Content-Length: 5x",), (b"Content-Length: 99999999999999999999",),
        (b"Content-Length: 3", b"Content-Length: 4"), (b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked, chunked",), (b"Transfer-Encoding: gzip",), (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding : chunked",), (b"Content-Length : 3",), (b"Content-Length: +3",),
        (b"Content-Length: 0x3",),
    ],
)  # fmt: skip
def test_framings_that_two_servers_could_read_differently_are_refused(
    served: Served, headers: tuple[bytes, ...]
) -> None:
    hidden = b"GET /made-up-hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = answers_to(
        served,
        b"\r\n".join((b"POST /predict HTTP/1.1", b"Host: x", *headers)) + b"\r\n\r\nabc" + hidden,
        patience_s=0.3,
    )
    assert statuses(answer) <= {b"400", b"413", b"415", b"422", b"501"}, answer[:500]
    assert not any(line.get("path") == "/made-up-hidden" for line in served.log)
    is_well(served)


@pytest.mark.parametrize(
    "body",
    [b"zz\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n", b"3\r\nabcdef\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nabc",
     b"3;" + b"x" * 100_000 + b"\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n", b"3\nabc\n0\n\n",
     b"0\r\n" + b"X: y\r\n" * 5_000 + b"\r\n"],
)  # fmt: skip
def test_pieces_that_do_not_fit_are_refused(served: Served, body: bytes) -> None:
    asked = whole(body, b"Content-Type: image/png", b"Transfer-Encoding: chunked", length=False)
    answer = answers_to(served, asked, patience_s=0.3)
    assert statuses(answer) <= {b"400", b"413", b"422"}, answer[:300]
    is_well(served)


def test_requests_one_behind_the_other_are_answered_in_order(served: Served) -> None:
    many = [whole(GOOD, b"Content-Type: image/png", b"X-Request-ID: r%d" % at) for at in range(40)]
    answer = answers_to(served, b"".join(many))
    ids = [line.split(b": ")[1] for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"r%d" % at for at in range(40)]
    assert statuses(answer) == {b"200"}


def test_a_refused_body_is_not_taken_for_the_next_request(served: Served) -> None:
    inner = b"GET /made-up-inner HTTP/1.1\r\nHost: x\r\n\r\n"
    first = whole(inner * 2000, b"Content-Type: text/html")  # refused before its body is read
    assert statuses(answers_to(served, first + REQUESTS["get"])) <= {b"415", b"200"}
    assert not any(line.get("path") == "/made-up-inner" for line in served.log)


def test_clients_that_send_byte_by_byte_and_leave_at_any_point(served: Served) -> None:
    data = REQUESTS["form"]
    open_ = [socket.create_connection(served.address, timeout=60) for _ in range(40)]
    for at, connection in enumerate(open_):
        for byte in range(0, len(data) * at // len(open_), 7):
            connection.sendall(data[byte : byte + 7])
    for connection in open_:
        assert select.select([connection], [], [], 0)[0] == []
        connection.close()
    is_well(served)
