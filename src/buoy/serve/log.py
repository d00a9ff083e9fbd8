"""The log: a line of JSON for each request and each event, on stderr."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

__all__ = ["about", "start"]

#: What every line says that is written while a request is answered: its id, and its trace if it has one.
about: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **about.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def start() -> None:
    """Write the service's log to stderr, and of the web server what is worth knowing."""
    out = logging.StreamHandler()
    out.setFormatter(_Lines())
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(logging.WARNING)
    logging.getLogger("buoy").setLevel(logging.INFO)
    # What strangers send is no event of ours.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
