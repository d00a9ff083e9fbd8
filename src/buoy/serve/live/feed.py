"""What viewers read from: the latest of a stream, which each of them takes at its own pace."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Feed", "News"]

T = TypeVar("T")


class News(NamedTuple, Generic[T]):
    """What has come since a reader last looked."""

    #: Numbers of the items, and the items; empty when nothing came in time, or the feed has ended.
    items: list[tuple[int, T]]
    #: How many came and went unseen.
    missed: int
    ended: bool


class Feed(Generic[T]):
    """The latest `most` items, numbered from 1. A reader that is slow misses some and holds up nobody.

    Args:
        most: items that are kept.
        most_bytes: what they may take together, by `size`; the latest is always kept.
    """

    def __init__(self, most: int, most_bytes: int = 512 << 10) -> None:
        self.last = 0
        self._most = most
        self._most_bytes = most_bytes
        self._kept: deque[tuple[int, T, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._change = asyncio.Event()

    def put(self, item: T, size_bytes: int = 0) -> None:
        """One more, for everybody who reads."""
        self.last += 1
        self._kept.append((self.last, item, size_bytes))
        self._bytes += size_bytes
        while len(self._kept) > self._most or (self._bytes > self._most_bytes and len(self._kept) > 1):
            self._bytes -= self._kept.popleft()[2]
        self._wake()

    def forget(self) -> None:
        """Nothing of what came so far is of use to anybody who comes now."""
        self._kept.clear()
        self._bytes = 0

    def end(self) -> None:
        """Nothing more comes: readers leave when they have read what there is."""
        self._ended = True
        self._wake()

    async def after(self, number: int, patience_s: float) -> News[T]:
        """What came after an item; waits for it for so long."""
        if not self._ended and not (self._kept and self._kept[-1][0] > number):
            try:
                async with asyncio.timeout(patience_s):
                    await self._change.wait()
            except TimeoutError:
                pass
        items = [(at, item) for at, item, _ in self._kept if at > number]
        missed = max(0, self.last - number - len(items)) if items else 0
        return News(items, missed, self._ended)

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
