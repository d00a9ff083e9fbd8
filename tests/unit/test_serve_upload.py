"""How a body is received: what it may take of time, memory and files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect, Request

from buoy.errors import BusyError
from buoy.serve.refusals import TooLarge, TooSlow
from buoy.serve.upload import Limits, Uploads
from support.loop import run


def request(messages: Iterable[dict[str, object]], **headers: str) -> Request:
    """A request whose body comes in these pieces, and then nothing."""
    left = iter(messages)

    async def receive() -> dict[str, object]:
        for message in left:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": given, "method": "POST", "path": "/"}, receive)


def piece(body: bytes, more: bool = True) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


async def read(uploads: Uploads, asked: Request) -> bytes:
    async with uploads.picture(asked) as upload:
        upload.file.seek(0)
        return upload.file.read()


def test_pieces_are_put_together_and_the_slot_is_given_back() -> None:
    uploads = Uploads(Limits())
    assert run(read(uploads, request([piece(b"ab"), piece(b""), piece(b"c", False)]))) == b"abc"
    assert uploads.open == 0


@pytest.mark.parametrize("limits", [Limits(pause_s=0.01), Limits(whole_s=0.01)])
def test_a_body_that_does_not_come_is_given_up(limits: Limits) -> None:
    uploads = Uploads(limits)
    with pytest.raises(TooSlow, match="2 bytes so far"):
        run(read(uploads, request([piece(b"ab")])))
    assert uploads.open == 0


def test_too_much_is_refused_by_its_head_or_as_it_comes() -> None:
    uploads = Uploads(Limits(size_bytes=100_000))
    with pytest.raises(TooLarge, match="larger than"):
        run(read(uploads, request([], content_length="1000000")))
    with pytest.raises(TooLarge):
        run(read(uploads, request([piece(b"x" * 60_000)] * 3)))
    with pytest.raises(TooLarge):
        run(read(uploads, request([piece(b"x" * 100_001, False)])))


def test_a_client_that_leaves_is_no_picture() -> None:
    uploads = Uploads(Limits())
    with pytest.raises(ClientDisconnect):
        run(read(uploads, request([piece(b"ab"), {"type": "http.disconnect"}])))
    assert uploads.open == 0


def test_no_more_bodies_are_received_at_once_than_there_is_room_for() -> None:
    uploads = Uploads(Limits())
    uploads.open = uploads.most
    with pytest.raises(BusyError):
        run(read(uploads, request([piece(b"ab", False)])))
