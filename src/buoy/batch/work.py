"""A pilot as a process: `python -m buoy.batch.work OUT RUN [--budget SECONDS] [--share N]`.

OUT is where the run's results go, RUN its name; all else is in the ledger. SHARE says how many pilots share this
machine. What engines start is this, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from random import SystemRandom
from typing import Any

import msgspec

from buoy import machine
from buoy.batch.area import Area, Home, open_area
from buoy.batch.clock import SystemClock
from buoy.batch.control import Control
from buoy.batch.fetch import Ahead
from buoy.batch.layout import SPEC
from buoy.batch.ledger import Ledger
from buoy.batch.manifest import ManifestRows
from buoy.batch.naming import pilot_name
from buoy.batch.patience import Patience
from buoy.batch.pattern import KeyPattern
from buoy.batch.pilot import Pilot
from buoy.batch.probe import trusted
from buoy.batch.rows import Liner, encode
from buoy.batch.runner import ItemRunner
from buoy.batch.spec import Spec, check_model
from buoy.errors import BuoyError, StoreError, as_buoy_error

__all__ = ["main", "make_runner", "read_spec", "source_of"]

#: A pilot that is told to stop gives a store that fails so long, and itself so long in all: who ends a container
#: for good waits for 20 s or 30 s.
_HURRY_S, _STOP_S = 10.0, 18.0


def read_spec(ledger: Ledger) -> Spec:
    """The spec of a run.

    Raises:
        StoreError: there is no such run.
    """
    record = ledger.read(SPEC)
    if record is None:
        raise StoreError("there is no such run", "see the runs with: buoy batch status OUT")
    return msgspec.convert(record["spec"], Spec)


def source_of(spec: Spec) -> Area:
    """What keys of the manifest are relative to."""
    area = open_area(spec.source)
    return Area(area.store, area.bucket)


def make_runner(spec: Spec, share: int = 1) -> ItemRunner:
    """The runner for a run's objects.

    Raises:
        UsageError: the model here is not the run's.
    """
    model = check_model(spec.model)
    handling = spec.handling
    patience = Patience(SystemClock(), SystemRandom(), 300.0)
    ahead = Ahead(source_of(spec), patience, fetchers=handling.fetchers, ahead_bytes=handling.ahead_bytes)
    return ItemRunner(
        ahead,
        Liner(spec.model.info, KeyPattern(spec.key_pattern)),
        model,
        spec.model.info,
        cores=max(1, machine.cores() // share),
        timeout_s=handling.item_timeout_s,
        every_s=spec.every_s,
        most_bytes=handling.memory_bytes or int(machine.memory_bytes() * 0.8 / share),
    )


def main(arguments: list[str]) -> int:
    """Work on a run until there is a reason to leave; returns the exit code."""
    parser = argparse.ArgumentParser(prog="buoy.batch.work")
    parser.add_argument("out")
    parser.add_argument("run")
    parser.add_argument("--budget", type=float)
    parser.add_argument("--share", type=int, default=1)
    options = parser.parse_args(arguments)
    clock, random = SystemClock(), SystemRandom()
    ledger = Ledger(Home(options.out).run(options.run), clock, random)
    try:
        spec = read_spec(ledger)
    except StoreError as error:  # a pilot that cannot reach its run has nothing to do, and is no failed job
        print(f"buoy batch: {error}", file=sys.stderr)
        return 0
    name = pilot_name()
    try:
        runner = make_runner(spec, options.share)
        runner.start()
    except BuoyError as error:
        with suppress(BuoyError):  # cancelled meanwhile
            Control(ledger).give("paused", by=name, reason=str(error))
        print(f"buoy batch: {error}", file=sys.stderr)
        return 1
    pace = spec.pace if options.budget is None else msgspec.structs.replace(spec.pace, budget_s=options.budget)
    pilot = Pilot(
        ledger, clock, random, runner, ManifestRows(ledger), name=name, encode=encode, pace=pace,
        facts=_facts(options.share), assigned=not trusted(ledger),
    )  # fmt: skip

    def stop(*_: object) -> None:
        pilot.stop()
        ledger.patience.hurry(_HURRY_S)
        runner.hurry(_HURRY_S)
        _leave_after(_STOP_S)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        print(f"buoy batch: {name} leaves: {pilot.run()}", file=sys.stderr)
    except Exception as error:
        print(f"buoy batch: {as_buoy_error(error, 'the ledger')}", file=sys.stderr)
        return 1
    finally:
        runner.close()
    return 0


def _leave_after(seconds: float) -> None:
    """End the process by then, whatever it waits for: a store that says nothing is heard of only after minutes."""
    last = threading.Timer(seconds, os._exit, (1,))
    last.daemon = True
    last.start()


def _facts(share: int) -> dict[str, Any]:
    cores = round(machine.cores() / share, 3)
    return {"cores": cores, "host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("JOB_UUID", "")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
