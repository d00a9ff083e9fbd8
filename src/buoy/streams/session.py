"""One connection to a source, in a thread of its own, which may be left behind where a library hangs."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing

from buoy.errors import BuoyError, as_buoy_error
from buoy.streams.frame import Picture
from buoy.streams.sources import Source, mask
from buoy.streams.sources.halt import Halt

__all__ = ["Session"]

_log = logging.getLogger("buoy.streams")


class Session(threading.Thread):
    """Reads until the source, a fault or `halt` ends it.

    Args:
        name: of the stream.
        source: what to read.
        accept: takes each picture, and may make us wait; answers `False` when it wants no more.
    """

    def __init__(self, name: str, source: Source, accept: Callable[[Session, Picture], bool]) -> None:
        super().__init__(name=f"source-{name}", daemon=True)
        self.halt = Halt()
        self.done = threading.Event()
        #: Why it ended; `None` if the source has no more.
        self.fault: BuoyError | None = None
        #: Whether a picture came.
        self.gave = False
        self._stream = name
        self._source = source
        self._accept = accept
        self._heard_s = self._found_s = time.monotonic()
        self._waiting = False

    def silent_s(self) -> float:
        """For how long nothing came."""
        return 0.0 if self._waiting else time.monotonic() - self._heard_s

    def fruitless_s(self) -> float:
        """For how long no picture came."""
        return 0.0 if self._waiting else time.monotonic() - self._found_s

    def found(self) -> None:
        """A picture came that can be looked at."""
        self.gave = True
        self._found_s = time.monotonic()

    def run(self) -> None:
        """Read; never raises."""
        try:
            with closing(self._source.pictures(self.halt)) as pictures:
                for picture in pictures:
                    if picture is not None and not self._take(picture):
                        break
                    self._heard_s = time.monotonic()
                    if self.halt.is_set():
                        break
        except BuoyError as error:
            self.fault = _bare(error)
        except Exception as error:
            _log.warning("stream %s: %s", self._stream, mask("".join(traceback.format_exception(error))))
            self.fault = _bare(as_buoy_error(error, f"stream {self._stream}"))
        finally:
            self.halt.release()
            self.done.set()

    def _take(self, picture: Picture) -> bool:
        self._waiting = True
        try:
            return self._accept(self, picture)
        finally:
            self._heard_s = time.monotonic()
            self._waiting = False


def _bare(error: BuoyError) -> BuoyError:
    """Without its traceback, which holds every buffer of the connection."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
