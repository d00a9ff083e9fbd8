"""Messages between processes come as they were sent, however they are cut on the way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from buoy import wire
from buoy.serve.channel import Channel, message
from support.loop import run as run_loop

LARGE = 24 << 20
MESSAGES = st.lists(st.tuples(st.dictionaries(st.text(), st.text(), max_size=3), st.binary(max_size=200)), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 50), min_size=1))
def test_messages_are_cut_out_of_pieces_of_any_size(messages: list[wire.Message], sizes: list[int]) -> None:
    sent = b"".join(wire.frame(head, len(body)) + body for head, body in messages)
    cutter, came, at = wire.Cutter(), list[wire.Message](), 0
    while at < len(sent):
        for size in sizes:
            came += cutter.feed(sent[at : at + size])
            at += size
    assert came == messages


def test_a_message_goes_through_whole_and_the_end_is_known() -> None:
    ours, theirs = wire.pair()
    with ours, theirs, theirs.makefile("rb") as stream:
        sender = threading.Thread(target=lambda: (wire.send(ours, {"id": 1}, b"x" * LARGE), ours.close()))
        sender.start()
        assert wire.read(stream) == ({"id": 1}, b"x" * LARGE)
        assert wire.read(stream) is None
        sender.join()


def with_channel(talk: Callable[[Channel, socket.socket], Awaitable[None]], said: list[Any] | None = None) -> None:
    """Talk over a channel with the other end of its socket, which nobody reads but the test."""

    async def run() -> None:
        ours, theirs = wire.pair()
        heard: list[Any] = [] if said is None else said
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: Channel(lambda *each: heard.append(each)), sock=ours)
        with theirs:
            await talk(channel, theirs)
        channel.close()

    run_loop(run())


def test_messages_of_a_channel_keep_their_order_whatever_their_size() -> None:
    sizes = (10, LARGE, 0, 300 << 10, 5)

    async def talk(channel: Channel, theirs: socket.socket) -> None:
        for number, size in enumerate(sizes):
            channel.send(message({"id": number}, bytes(size)))
        with theirs.makefile("rb") as stream:
            came = [await asyncio.to_thread(wire.read, stream) for _ in sizes]
        assert [(each[0]["id"], len(each[1])) for each in came if each] == list(enumerate(sizes))

    with_channel(talk)


def test_what_waits_to_be_sent_is_not_made_before_there_is_room() -> None:
    made: list[int] = []

    def lazy(number: int) -> Any:
        made.append(number)
        yield from message({"id": number}, bytes(LARGE))

    async def talk(channel: Channel, theirs: socket.socket) -> None:
        for number in range(3):
            channel.send(lazy(number))
        await asyncio.sleep(0.05)
        assert made == [0]

    with_channel(talk)


def test_whoever_waits_for_room_goes_on_when_the_process_reads_or_is_gone() -> None:
    async def talk(channel: Channel, theirs: socket.socket) -> None:
        first = asyncio.ensure_future(channel.pass_on(message({"id": 0}, bytes(LARGE))))
        second = asyncio.ensure_future(channel.pass_on(message({"id": 1}, bytes(LARGE))))
        await asyncio.sleep(0.05)
        assert not first.done()
        with theirs.makefile("rb") as stream:
            assert await asyncio.to_thread(wire.read, stream)
        await asyncio.wait_for(first, 10)
        assert not second.done()
        theirs.shutdown(socket.SHUT_RDWR)
        await asyncio.wait_for(second, 10)
        assert channel.over.is_set()
        await channel.pass_on(message({"id": 2}))  # to nobody

    with_channel(talk)


def test_what_makes_a_message_may_send_one_itself() -> None:
    async def talk(channel: Channel, theirs: socket.socket) -> None:
        def first() -> Any:
            channel.send(message({"id": 1}))
            yield from message({"id": 0})

        channel.send(first())
        with theirs.makefile("rb") as stream:
            assert [(wire.read(stream) or ({}, b""))[0] for _ in range(2)] == [{"id": 0}, {"id": 1}]

    with_channel(talk)


def test_what_the_process_says_is_heard() -> None:
    said: list[Any] = []

    async def talk(channel: Channel, theirs: socket.socket) -> None:
        await asyncio.to_thread(wire.send, theirs, {"id": 7}, b"answer" * 100_000)
        while not said:
            await asyncio.sleep(0.01)

    with_channel(talk, said)
    assert said == [({"id": 7}, b"answer" * 100_000)]
