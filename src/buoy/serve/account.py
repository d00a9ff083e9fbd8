"""What becomes of one request, whatever it came over: its line in the log, its counts, its trace."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from buoy.errors import BuoyError, as_buoy_error
from buoy.serve import log
from buoy.serve.metrics import Metrics

if TYPE_CHECKING:
    from buoy.serve.tracing import Tracing

__all__ = ["Account", "current"]

_log = logging.getLogger("buoy.serve")

#: The request that is being answered, for those that do not have it in their hands.
current: ContextVar[Account | None] = ContextVar("account", default=None)


class Account:
    """One request, from its head to the end of its answer.

    Args:
        metrics: where it is counted.
        tracing: where it is traced, if anywhere.
        method: `GET`, `WebSocket`, `gRPC`.
        path: what was asked for.
        headers: with names in lower case: an id, and the trace it belongs to.
    """

    def __init__(
        self, metrics: Metrics, tracing: Tracing | None, method: str, path: str, headers: Mapping[bytes, bytes]
    ) -> None:
        self.id = _usable(headers.get(b"x-request-id", b""))
        #: Of the table of routes; what strangers make up must not become a label.
        self.route = "other"
        #: Whether it lasts as long as somebody watches, which is no time of an answer.
        self.watching = False
        self._metrics = metrics
        self._method = method
        self._path = path
        self._began_s = time.monotonic()
        self._fields: dict[str, Any] = {}
        self._span = tracing.begin(method, path, headers) if tracing else None
        ids = self._span.ids if self._span else {}
        log.about.set({"id": self.id, **ids})
        current.set(self)

    def looked(self, model: str, began_ns: int, spent: Mapping[str, float]) -> None:
        """A picture was looked at: when that began, and what it took."""
        self._fields |= {"model": model, **spent}
        if self._span:
            self._span.looked(model, began_ns, spent)

    def refused(self, error: Exception) -> BuoyError:
        """It is answered with an error; a fault of ours goes to the log as a whole."""
        told = as_buoy_error(error, f"{self._method} {self._path}")
        if told is not error:
            _log.error("fault", exc_info=error)
        self._fields["error"] = told.record()["class"]
        self._metrics.refused.add(1, reason=self._fields["error"])
        return told

    def close(self, status: int | str, *, quiet: bool = False) -> None:
        """It is over; `quiet` for probes that went well."""
        spent_s = time.monotonic() - self._began_s
        self._metrics.requests.add(1, route=self.route, method=self._method, status=str(status))
        if not self.watching:
            self._metrics.seconds.see(spent_s, route=self.route)
        if self._span:
            self._span.end(self.route, status, self._fields.get("error", ""))
        if quiet:
            return
        head = {"method": self._method, "path": self._path, "status": status, "ms": round(spent_s * 1000, 2)}
        _log.info("request", extra={"fields": {**head, **self._fields}})


def _usable(given: bytes) -> str:
    """The id that the caller gave, if it can be written in a line; else one of ours."""
    text = given.decode("latin-1")
    usable = 0 < len(text) <= 128 and text.isascii() and text.isprintable()
    return text if usable else secrets.token_hex(8)
