"""Inputs that break the process that looks at them, for tests: `BUOY_POISON=1`, and a name with the way to break in it.

Unset, as it always is but in tests, it costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from buoy.engine import Engine

__all__ = ["install"]


def install(engine: Engine) -> None:
    """Have the engine break at such inputs, in the lane that looks at them."""
    if os.environ.get("BUOY_POISON") != "1":
        return
    look = engine.model.look

    def poisoned(*args: Any, **options: Any) -> Any:
        _take(str(options.get("name")))
        return look(*args, **options)

    engine.model.look = poisoned  # type: ignore[method-assign]


def _take(name: str) -> None:
    if "poison-segfault" in name:
        signal.raise_signal(signal.SIGSEGV)  # in this thread: another one might take it late
    if "poison-hang" in name:
        threading.Event().wait()
    if "poison-memory" in name:
        hoard = []
        while True:
            hoard.append(b"x" * (64 << 20))
            time.sleep(0.03)
    if "poison-pilot" in name:
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()
