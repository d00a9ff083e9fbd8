"""Starts inference processes, before anything heavy is imported here: both sides load at once."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass

from buoy import wire

__all__ = ["Spawned", "spawn"]


@dataclass(frozen=True)
class Spawned:
    """A process that loads a model, and our end of the socket to it."""

    model: str
    callers: int | None
    process: subprocess.Popen[bytes]
    channel: socket.socket

    def again(self) -> Spawned:
        """Another one like it."""
        return spawn(self.model, self.callers)

    def kill(self) -> None:
        """End it now."""
        self.process.kill()

    def end(self, patience_s: float) -> int:
        """Wait until it has ended, but not for long; returns its exit code, negative for a signal."""
        self.channel.close()
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def spawn(model: str, callers: int | None) -> Spawned:
    """Start one for a model (a name or a folder); `callers` as in `buoy.engine.Engine.open`."""
    return Spawned(model, callers, *wire.start("buoy.serve.child", model, callers))
