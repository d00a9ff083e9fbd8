"""What passes between a caller and an exposed service: both are real, and neither may notice what is in between."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from buoy.results import decode_record
from support.exposed import Live, expose_model, expose_script
from support.gateway import Gateway, running, until
from support.loop import run
from support.tiny import make_model, picture_with_squares, png

PICTURE = png(picture_with_squares((1, 2)))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("up") / "data") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def stand_in(gateway: Gateway) -> Live:
    return expose_script(gateway, "stand-in")


@pytest.fixture(scope="module")
def tiny(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Live:
    return expose_model(gateway, "tiny-live", make_model(tmp_path_factory.mktemp("functions")))


def headers_of(answer: httpx2.Response) -> dict[str, str]:
    return dict(answer.json()["headers"])


def test_a_model_answers_through_the_gateway_as_by_itself(tiny: Live) -> None:
    with tiny.client() as http:
        answer = http.post("/predict", content=PICTURE, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200, answer.text
        (found,) = decode_record(answer.content).detections
        assert found.label == "bright"
        # a slash at the end makes another route of it: DEEPaaS and the Open Inference Protocol share /v2
        assert (
            http.get("/v2/models/")
            .json()["models"][0]["links"][0]["href"]
            .startswith("/system/services/tiny-live/exposed/")
        )
        assert http.get("/v2/health/ready").status_code == 200
        assert http.get("/openapi.json").json()["servers"] == [{"url": "/system/services/tiny-live/exposed"}]
        form = http.post("/v2/models/tiny/predict/", files={"data": ("a.png", PICTURE, "image/png")})
        assert form.json()["status"] == "OK"


def test_the_service_is_given_what_oscar_gives(stand_in: Live) -> None:
    with stand_in.client() as http:
        answer = http.get("/x")
        assert answer.status_code == 200, answer.text + stand_in.log()
        found = answer.json()["env"]
    assert found["OSCAR_SERVICE_NAME"] == "stand-in"
    assert found["OSCAR_SERVICE_TOKEN"] == stand_in.token
    assert found["OSCAR_SERVICE_BASE_PATH"] == "/system/services/stand-in/exposed"
    assert Path(found["BUOY_SERVE_DATA"]) == stand_in.gateway.data / "exposed" / "stand-in"
    assert int(found["BUOY_PORT"]) > 0


@pytest.mark.parametrize(("rewrite", "prefix"), [(False, ""), (True, "/system/services/{}/exposed")])
def test_either_the_whole_path_arrives_or_what_follows_the_prefix(
    gateway: Gateway, name: str, rewrite: bool, prefix: str
) -> None:
    live = (
        expose_script(gateway, name, rewrite_target=rewrite, probe_mode="legacy")
        if not rewrite
        else expose_script(gateway, name, rewrite_target=True, health_path="/health")
    )
    prefix = prefix.format(name)
    with live.client() as http:
        for path in ("/a/b", "/a%20b/%C3%A9/", "/a//b;c=1", "/a%2Fb"):
            found = http.get(f"{path}?x=1&y=%20z").json()
            assert (found["path"], found["query"]) == (prefix + path, "x=1&y=%20z")
        assert http.get(f"{live.url}").json()["path"] == (prefix or "/")
        page = http.get(f"{live.url}?x=1", headers={"Accept": "text/html"})
        assert page.status_code == 307
        assert page.headers["location"] == f"/system/services/{name}/exposed/?x=1"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A service name of its own for each test."""
    return f"s-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def test_headers_about_the_connection_stay_here_and_the_others_pass(stand_in: Live) -> None:
    sent = {"Connection": "x-mine", "X-Mine": "1", "X-Yours": "2", "TE": "trailers",
            "X-Forwarded-Host": "evil.example", "Cookie": "a=1; buoy_session=secret; b=2"}  # fmt: skip
    with stand_in.client() as http:
        answer = http.get("/x", headers=sent)
    seen = headers_of(answer)
    assert seen["x-yours"] == "2"
    assert not {"x-mine", "te", "connection", "upgrade", "keep-alive"} & set(seen)
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-host"] == seen["host"] == stand_in.gateway.url.removeprefix("http://")
    assert seen["x-forwarded-prefix"] == "/system/services/stand-in/exposed"
    assert [part.strip() for part in seen["cookie"].split(";")] == ["a=1", "b=2"]
    assert answer.headers["x-kept"] == "yes"
    assert not {"x-private", "keep-alive"} & set(answer.headers)
    assert len(answer.headers.get_list("date")) == 1
    assert "content-security-policy" not in answer.headers  # the service's own business


def test_what_a_proxy_on_this_machine_says_of_the_caller_is_passed_on(stand_in: Live) -> None:
    with stand_in.client() as http:
        seen = headers_of(http.get("/x", headers={"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}))
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("192.0.2.7", "https")


def test_a_body_of_any_framing_arrives_whole(stand_in: Live) -> None:
    content = bytes(range(256)) * 40_000  # 10 MB

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(content), 100_000):
            yield content[at : at + 100_000]

    want = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with stand_in.client() as http:
        assert http.post("/digest", content=content).json() == want
        assert http.put("/digest", content=pieces()).json() == want
        assert http.post("/digest").json()["size"] == 0
        assert http.get("/large", params={"size": 5_000_000}).content == b"x" * 5_000_000
        head = http.head("/large", params={"size": 1000})
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "1000", b"")


def test_bodies_pass_piece_by_piece_both_ways_at_once(stand_in: Live) -> None:
    """Each piece of the answer comes before the next piece of the question is sent: nothing waits in between."""

    async def talk() -> None:
        auth = {"Authorization": f"Bearer {stand_in.token}"}
        reader, writer = await asyncio.open_connection("127.0.0.1", stand_in.gateway.port)
        try:
            await _talk(reader, writer, auth)
        finally:
            writer.close()
            await writer.wait_closed()

    async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, auth: dict[str, str]) -> None:
        lines = ["POST /system/services/stand-in/exposed/duplex HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"]
        lines += [f"{key}: {value}" for key, value in auth.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        writer.write(b"3\r\none\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await _chunk(reader) == b"ONE"
        for word in (b"two", b"three"):
            writer.write(b"%x\r\n%b\r\n" % (len(word), word))
            assert await _chunk(reader) == word.upper()
        writer.write(b"0\r\n\r\n")
        assert await _chunk(reader) == b""

    run(asyncio.wait_for(talk(), 60))


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


def test_an_upload_that_is_refused_early_is_told_so(stand_in: Live) -> None:
    """The answer comes long before the body is over, which is never sent to its end."""
    with socket.create_connection(("127.0.0.1", stand_in.gateway.port), timeout=60) as caller:
        head = f"POST /system/services/stand-in/exposed/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n"
        caller.sendall(f"{head}Authorization: Bearer {stand_in.token}\r\n\r\n".encode() + b"x" * 100_000)
        assert caller.recv(65_536).startswith(b"HTTP/1.1 413")


def test_a_stream_is_passed_on_as_it_comes_and_ends_when_its_reader_leaves(stand_in: Live) -> None:
    with stand_in.client() as http:
        before = http.get("/state").json()["left"].count("forever")
        with http.stream("GET", "/forever") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert [next(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]
        until(lambda: http.get("/state").json()["left"].count("forever") == before + 1)


def test_a_caller_that_leaves_is_known_to_the_service(stand_in: Live) -> None:
    with stand_in.client() as http:
        before = http.get("/state").json()["left"].count("hold")
        with socket.create_connection(("127.0.0.1", stand_in.gateway.port)) as caller:
            lines = ["GET /system/services/stand-in/exposed/hold?until=never HTTP/1.1", "Host: x"]
            caller.sendall("\r\n".join([*lines, f"Authorization: Bearer {stand_in.token}", "", ""]).encode())
            until(lambda: http.get("/state").json()["held"] == 1)
        until(lambda: http.get("/state").json()["left"].count("hold") == before + 1)


def test_an_answer_that_breaks_off_does_not_look_complete(gateway: Gateway, name: str) -> None:
    live = expose_script(gateway, name)
    with live.client() as http, pytest.raises(httpx2.RemoteProtocolError):
        http.get("/cut")


def socket_url(live: Live) -> str:
    return live.url.replace("http://", "ws://") + "/socket"


def test_messages_of_a_websocket_pass_both_ways(stand_in: Live) -> None:
    async def talk() -> None:
        auth = {"Authorization": f"Bearer {stand_in.token}"}
        async with connect(socket_url(stand_in), additional_headers=auth, subprotocols=["fish"], proxy=None) as talk:  # type: ignore[list-item]
            assert talk.subprotocol == "fish"
            for size in (0, 10, 300_000):
                await talk.send("x" * size)
                assert await talk.recv() == b"x" * size
            await talk.send("bye")
            with pytest.raises(ConnectionClosed):
                await talk.recv()
            assert (talk.close_code, talk.close_reason) == (4321, "as you wish")

    run(asyncio.wait_for(talk(), 60))


def test_a_camera_that_pushes_and_its_viewers_reach_the_model_through_here(tiny: Live) -> None:
    """Pictures by WebSocket into the real service, results by WebSocket and the drawn picture as MJPEG out of it."""
    auth = {"Authorization": f"Bearer {tiny.token}"}
    stream = tiny.url.replace("http://", "ws://") + "/streams/pushed"
    picture = io.BytesIO()
    Image.fromarray(picture_with_squares((1, 2))).save(picture, "JPEG")

    async def results() -> dict[str, Any]:
        async with connect(f"{stream}/ws", additional_headers=auth, proxy=None) as viewer:
            while True:
                event: dict[str, Any] = json.loads(await viewer.recv())
                if "record" in event:
                    return event

    async def drawn() -> bytes:
        async with (
            httpx2.AsyncClient(headers=auth, timeout=60.0) as http,
            http.stream("GET", f"{tiny.url}/streams/pushed/mjpeg") as shown,
        ):
            assert shown.headers["content-type"].startswith("multipart/x-mixed-replace")
            async for piece in shown.aiter_bytes():
                if b"\xff\xd8\xff" in piece:
                    return piece
        return b""

    async def push(over: asyncio.Event) -> None:
        async with connect(f"{stream}/push", additional_headers=auth, proxy=None) as camera:
            while not over.is_set():
                await camera.send(picture.getvalue())
                await asyncio.sleep(0.05)

    async def all_of_it() -> tuple[dict[str, Any], bytes]:
        over = asyncio.Event()
        camera = asyncio.create_task(push(over))
        try:
            return await asyncio.gather(results(), drawn())
        finally:
            over.set()
            await camera

    with tiny.client() as http:
        assert http.post("/streams", json={"name": "pushed", "source": "push:"}).status_code == 201
        event, shown = run(asyncio.wait_for(all_of_it(), 120))
        assert [found["label"] for found in event["record"]["detections"]] == ["bright"]
        assert shown
        assert http.delete("/streams/pushed").status_code == 204


def test_a_websocket_ends_with_its_client_and_is_refused_with_a_reason(stand_in: Live) -> None:
    async def leave() -> None:
        auth = {"Authorization": f"Bearer {stand_in.token}"}
        async with connect(socket_url(stand_in), additional_headers=auth, proxy=None) as talk:
            await talk.send("x")
            await talk.recv()

    async def refused(**headers: str) -> Any:
        with pytest.raises(InvalidStatus) as error:
            async with connect(socket_url(stand_in), additional_headers=headers, proxy=None):
                pass
        return error.value.response

    with stand_in.client() as http:
        before = http.get("/state").json()["left"].count("socket")
        run(asyncio.wait_for(leave(), 60))
        until(lambda: http.get("/state").json()["left"].count("socket") == before + 1)
    response = run(refused())
    assert response.status_code == 401
    assert json.loads(response.body)["error"]["class"] == "Denied"
