"""Places where a test ends the process: `BUOY_FAILPOINT=name` or `name:3` for the third time it is reached.

`BUOY_FAILPOINT_SIGNAL=STOP` makes it stand still instead.

Unset, as it always is but in tests, it costs the comparison of two words.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

__all__ = ["NAMES", "Name", "reach"]

Name = Literal[
    "pilot.claim", "pilot.claimed", "pilot.item", "pilot.beat", "pilot.attempt", "pilot.stored", "pilot.committed",
    "coord.spec", "coord.shard", "coord.manifest", "coord.plan", "coord.epoch", "coord.submit", "coord.complete",
    "coord.seal", "coord.merge", "coord.done", "giver.claim", "giver.fin",
]  # fmt: skip
NAMES: tuple[str, ...] = Name.__args__  # type: ignore[attr-defined]

_wanted, _, _times = os.environ.get("BUOY_FAILPOINT", "").partition(":")
_left = int(_times or 1)


def reach(name: Name) -> None:
    """End this process, as a power cut would, if the test wants it to end here."""
    global _left
    if name != _wanted:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.Signals[f"SIG{os.environ.get('BUOY_FAILPOINT_SIGNAL', 'KILL')}"])
