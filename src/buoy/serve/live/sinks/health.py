"""Whether a sink works: said once when it stops, once when it works again, and shown all the time."""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from typing import Any

from buoy.errors import BuoyError, ErrorRecord

__all__ = ["Health"]

_log = logging.getLogger("buoy.serve.sinks")

_FIRST_S = 0.5


class Health:
    """One thing that can fail and recover.

    Args:
        what: fields of the log lines that say which sink it is.
        longest_s: the longest wait before the next try.
        steady_s: it works again when nothing has failed for so long, since a disk that is nearly full takes a line
            now and then.
    """

    def __init__(self, what: dict[str, Any], longest_s: float = 30.0, steady_s: float = 0.0) -> None:
        self.error: ErrorRecord | None = None
        #: When the present state began.
        self.since = _now()
        self._what = what
        self._longest_s = longest_s
        self._steady_s = steady_s
        self._failures = 0
        self._began_s = self._good_s = 0.0

    def failed(self, error: BuoyError) -> float:
        """It does not work; gives how many seconds to wait before the next try."""
        if self.error is None:
            self.since, self._began_s = _now(), time.monotonic()
            _log.warning("a sink fails", extra={"fields": {**self._what, **error.record()}})
        self.error = error.record()
        self._good_s = 0.0
        wait_s = min(self._longest_s, _FIRST_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return wait_s * random.uniform(0.5, 1.0)  # so that many do not come back at the same moment

    def worked(self) -> None:
        """It works."""
        self._failures = 0
        if self.error is None:
            return
        self._good_s = self._good_s or time.monotonic()
        self.settle()

    def settle(self) -> None:
        """Nothing had to be done; what worked before may have done so for long enough by now."""
        now_s = time.monotonic()
        if self.error is not None and self._good_s and now_s - self._good_s >= self._steady_s:
            self.error, self.since = None, _now()
            after_s = round(now_s - self._began_s, 1)
            _log.info("a sink works again", extra={"fields": {**self._what, "after_s": after_s}})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
