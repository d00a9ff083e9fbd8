"""Who sends the pictures of a stream: one client at a time, the latest to come."""

from __future__ import annotations

import asyncio

__all__ = ["Pushes"]


class Pushes:
    """A client that has lost its connection may come again before we have noticed: the newer one is right."""

    def __init__(self) -> None:
        self._current: asyncio.Event | None = None

    def begin(self) -> asyncio.Event:
        """Take over; the event is set when another one does."""
        if self._current:
            self._current.set()
        self._current = asyncio.Event()
        return self._current

    def end(self, mine: asyncio.Event) -> None:
        """That client has left."""
        if self._current is mine:
            self._current = None
