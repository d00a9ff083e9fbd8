"""A command that goes on when its terminal is closed: what it has to say goes into its log from then on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from buoy.runs import state_folder

__all__ = ["leave", "log_of", "survive"]


def log_of(run: str) -> Path:
    """Where workers of this machine, and commands without a terminal, write what they have to say."""
    return state_folder() / f"{run}.log"


def survive(run: str, left: Callable[[], None] = lambda: None) -> None:
    """From now on a closed terminal ends nothing; `left` is called when it happens."""

    def hung_up(*_: object) -> None:
        leave(run)
        left()

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, hung_up)


def leave(run: str) -> None:
    """Write into the log instead of to a terminal that is not there."""
    log = log_of(run)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(target, number)
    os.close(target)
