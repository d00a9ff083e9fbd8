"""Where events come from, beside MinIO's webhook: a watched folder, and listing.

Listing is the truth, events are the hurry: every source lists at its start, after trouble, and every
now and then, so an event that got lost costs time and nothing else.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from watchfiles._rust_notify import RustNotify

from buoy.errors import BuoyError, MissingError
from buoy.gateway.events import Intake
from buoy.gateway.services import Service
from buoy.store import Object
from buoy.store.folder import FolderStore

__all__ = ["FolderWatch", "Listing"]

_log = logging.getLogger(__name__)

#: Changes are taken together for so long at most, and handed on when this much passed without another.
_DEBOUNCE_MS, _STEP_MS = 20, 5
#: How often a file is looked at again that somebody is writing.
_UNFINISHED_MS = 20
_QUIET_MS = 1000
_PROBE_WAIT_S = 2.0
#: Between two listings, where nothing else tells of files.
_OFTEN_S = 2.0


class Listing:
    """Lists every service's input paths: at once when asked, and every `period_s`."""

    def __init__(self, intake: Intake, services: Mapping[str, Service], period_s: float) -> None:
        self.period_s = period_s
        self._intake = intake
        self._services = services
        self._now = threading.Event()
        self._now.set()
        self._stopping = False
        self._done = threading.Condition()
        self._rounds = 0
        self._failing = False
        self._thread = threading.Thread(target=self._loop, name="listing", daemon=True)

    def start(self) -> None:
        """Begin, with a first listing."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is under way."""
        self._stopping = True
        self._now.set()
        self._thread.join()

    def ask(self) -> None:
        """List now, because events may have been missed."""
        self._now.set()

    def _loop(self) -> None:
        while True:
            self._now.clear()
            began = time.monotonic()
            self._round()
            # A large bucket is listed less often: at most a twentieth of the time goes into it.
            self._now.wait(max(self.period_s, 20 * (time.monotonic() - began)))
            if self._stopping:
                return

    def _round(self) -> None:
        for service in tuple(self._services.values()):
            try:
                found = self._intake.reconcile(service)
            except BuoyError as error:
                if not self._failing:
                    _log.warning("listing for service %s: %s", service.name, error)
                self._failing = True
                return
            if found:
                _log.info("service %s: listing found %d new objects", service.name, found)
        if self._failing:
            _log.info("the store answers again, and all inputs are listed")
        self._failing = False


class FolderWatch:
    """Tells the intake of files that appear below the root of a folder store, milliseconds after."""

    def __init__(self, store: FolderStore, intake: Intake, listing: Listing) -> None:
        """`listing` is asked whenever events may have been missed."""
        self._store = store
        self._intake = intake
        self._listing = listing
        self._probe = store.root / ".buoy" / f"probe-{secrets.token_hex(8)}"
        self._proven = threading.Event()
        self._stop = threading.Event()
        self._unfinished: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._loop, name="folder-watch", daemon=True)
        self._ready = threading.Event()

    def start(self) -> None:
        """Begin to watch; what comes after this call is seen.

        A file of ours must be reported first: some file systems (of networks, of virtual machines) let
        themselves be watched and report nothing.
        """
        self._probe.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._ready.wait(10)
        self._probe.touch()
        if not self._proven.wait(_PROBE_WAIT_S):
            self._listing.period_s = _OFTEN_S
            _log.warning(
                "%s: changes are not reported there; files are found by listing, every %g s", self._store.root, _OFTEN_S
            )
        self._probe.unlink(missing_ok=True)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                with RustNotify([str(self._store.root)], False, False, 0, True, True) as notify:
                    self._ready.set()
                    self._watch(notify)
            except (OSError, RuntimeError, BuoyError) as error:
                # A full table of watches, say: files are still found, by listing.
                _log.warning("watching %s: %s; files are found by listing meanwhile", self._store.root, error)
                self._ready.set()
                self._stop.wait(5.0)
            self._listing.ask()

    def _watch(self, notify: RustNotify) -> None:
        while not self._stop.is_set():
            pause_ms = _UNFINISHED_MS if self._unfinished else _QUIET_MS
            changes = notify.watch(_DEBOUNCE_MS, _STEP_MS, pause_ms, self._stop)
            paths = {path for _, path in changes} if isinstance(changes, set) else set()
            if str(self._probe) in paths:
                self._proven.set()
            again, self._unfinished = self._unfinished, set()
            objects = self._objects(again.union(*map(self._keys, paths)))
            if objects:
                self._intake.offer(objects)

    def _keys(self, path: str) -> set[tuple[str, str]]:
        """The keys that a changed path stands for: a folder moved in comes as one change."""
        if not os.path.isdir(path):
            place = self._store.locate(Path(path))
            return {place} if place and self._intake.wanted(*place) else set()
        inside = set()
        for parent, _, names in os.walk(path):
            for name in names:
                inside |= self._keys(os.path.join(parent, name))
        return inside

    def _objects(self, keys: set[tuple[str, str]]) -> list[Object]:
        found = []
        for bucket, key in sorted(keys):
            try:
                found.append(self._store.stat(bucket, key))
            except MissingError as error:
                if error.retry:  # somebody is still writing it
                    self._unfinished.add((bucket, key))
            except BuoyError as error:
                _log.warning("%s/%s: %s", bucket, key, error)
                self._listing.ask()
        return found
