"""Parts that nobody sends any more: their stream was deleted, or its sink changed, while the store was away.

Each spool has a file `.sink.json` beside its parts, with what is needed to send them: a stream without a source to
speak of, and the one sink.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from buoy.errors import UsageError, as_buoy_error
from buoy.serve.live.sinks import Sinks
from buoy.serve.live.sinks.spool import sealed
from buoy.store.local import appearing
from buoy.streams.spec import Sink, StreamSpec, read_spec

__all__ = ["open_left", "remember"]

_log = logging.getLogger("buoy.serve.sinks")

_NAME = ".sink.json"


def remember(folder: Path, sink: Sink, spec: StreamSpec) -> None:
    """Write down whose parts these are.

    Raises:
        StoreError: the disk refuses.
    """
    kept = StreamSpec(name=spec.name, source="push:", sinks=[sink], station=spec.station, camera=spec.camera)
    with appearing(folder / _NAME) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(msgspec.json.encode(kept))


def open_left(data: Path, running: Iterable[StreamSpec]) -> list[Sinks]:
    """Sinks that send the parts that no running stream sends.

    Args:
        data: the service's folder.
        running: the streams that send their own.
    """
    ours = {(spec.name, sink.to, sink.format) for spec in running for sink in spec.sinks}
    opened = []
    for kept in sorted((data / "spool").glob(f"*/*/{_NAME}")):
        try:
            spec = read_spec(kept.read_bytes())
            if sealed(kept.parent) and not ours & {(spec.name, sink.to, sink.format) for sink in spec.sinks}:
                opened.append(Sinks(spec, data))
                _log.info("parts of another time", extra={"fields": {"stream": spec.name, "spool": str(kept.parent)}})
        except (OSError, UsageError) as error:  # such as a store that is not named any more; the parts stay
            told = as_buoy_error(error, str(kept))
            _log.error("parts cannot be sent", extra={"fields": {"spool": str(kept.parent), **told.record()}})
    return opened
