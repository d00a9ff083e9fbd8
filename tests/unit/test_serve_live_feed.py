"""What viewers read from: at their own pace, bounded, without waiting for each other."""

from __future__ import annotations

import asyncio

from buoy.serve.live.feed import Feed
from support.loop import run


def test_a_reader_gets_what_came_after_the_last_it_has_seen() -> None:
    async def read() -> None:
        feed: Feed[str] = Feed(8)
        for word in ("a", "b", "c"):
            feed.put(word)
        assert await feed.after(1, 0) == ([(2, "b"), (3, "c")], 0, False)
        assert await feed.after(3, 0) == ([], 0, False)

    run(read())


def test_a_slow_reader_is_told_how_many_it_has_missed() -> None:
    async def read() -> None:
        feed: Feed[int] = Feed(2)
        for number in range(1, 11):
            feed.put(number)
        assert await feed.after(3, 0) == ([(9, 9), (10, 10)], 5, False)

    run(read())


def test_no_more_than_so_many_bytes_are_kept_and_always_the_latest() -> None:
    async def read() -> None:
        feed: Feed[str] = Feed(100, most_bytes=10)
        for word, size in (("a", 4), ("b", 4), ("c", 4), ("large", 50)):
            feed.put(word, size)
        assert (await feed.after(0, 0)).items == [(4, "large")]
        feed.put("d", 4)
        assert (await feed.after(0, 0)).items == [(5, "d")]

    run(read())


def test_what_is_forgotten_is_neither_given_nor_waited_for_in_a_circle() -> None:
    async def read() -> None:
        feed: Feed[str] = Feed(1)
        feed.put("old")
        feed.forget()
        waiting = asyncio.ensure_future(feed.after(0, 30))
        await asyncio.sleep(0)
        assert not waiting.done()
        feed.put("new")
        assert (await waiting).items == [(2, "new")]

    run(read())


def test_readers_that_wait_are_woken_by_the_end() -> None:
    async def read() -> None:
        feed: Feed[str] = Feed(1)
        waiting = asyncio.gather(*(feed.after(0, 30) for _ in range(3)))
        await asyncio.sleep(0)
        feed.end()
        assert all(news.ended for news in await waiting)

    run(read())
