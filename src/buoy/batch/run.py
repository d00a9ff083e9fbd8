"""A run from its spec to its results: what `buoy batch run` does, step by step; each step is skipped if it was done."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from random import SystemRandom
from typing import Any, NamedTuple

import msgspec

from buoy.batch import failpoint
from buoy.batch.area import Home, open_area
from buoy.batch.cells import plan_bounds
from buoy.batch.clock import SystemClock
from buoy.batch.control import Control
from buoy.batch.coordinator import Coordinator
from buoy.batch.engines import PilotEngine
from buoy.batch.estimate import Estimate, estimate, sample_rows
from buoy.batch.layout import CAPS, PLAN, SPEC
from buoy.batch.ledger import Ledger
from buoy.batch.listing import lister_of
from buoy.batch.manifest import Index, ManifestRows, write_manifest
from buoy.batch.merge import merge, span_of
from buoy.batch.overview import Progress
from buoy.batch.pattern import KeyPattern
from buoy.batch.pilot import Ending
from buoy.batch.probe import probe, trusted
from buoy.batch.report import crate, make_report
from buoy.batch.seal import Seal
from buoy.batch.spec import Spec
from buoy.batch.work import make_runner

__all__ = ["Found", "coordinate", "open_ledger", "prepare"]

Say = Callable[[str], None]


class Found(NamedTuple):
    """What a run is about, and what it will take."""

    ledger: Ledger
    manifest: Index
    estimate: Estimate
    #: The fraction of keys that the key pattern reads.
    matched: float


def open_ledger(home: Home, run: str, *, make: bool = False) -> Ledger:
    """The ledger of a run."""
    return Ledger(home.run(run, make=make), SystemClock(), SystemRandom())


def prepare(spec: Spec, home: Home, say: Say) -> Found:
    """Probe the store, list the source, look at a sample.

    Raises:
        UsageError: the source is not there, or the key pattern reads no key.
        StoreError: a store refuses.
    """
    open_area(spec.source)  # says if it is not there, before anything is written
    ledger = open_ledger(home, spec.run, make=True)
    if ledger.read(CAPS) is None:
        ledger.create(CAPS, msgspec.to_builtins(probe(ledger.area)))
    record = {"spec": msgspec.to_builtins(spec), "fingerprint": spec.fingerprint}
    ledger.create(SPEC, record)
    failpoint.reach("coord.spec")
    say("listing the source")
    index = write_manifest(ledger, lister_of(spec, home, ledger), began_s=SystemClock().wall())
    failpoint.reach("coord.manifest")
    matched = _check_pattern(spec, ledger, index)
    say("looking at a sample")
    if ledger.read("estimate.json") is None and index.todo:
        runner = make_runner(spec)
        try:
            found = estimate(ledger, index, runner, SystemRandom())
        finally:
            runner.close()
    else:
        found = estimate(ledger, index, None, SystemRandom())  # type: ignore[arg-type]
    return Found(ledger, index, found, matched)


def coordinate(
    spec: Spec, home: Home, found: Found, engine: PilotEngine, *, about: dict[str, str], share: float,
    pilots: int, show: Callable[[Progress], None], look_s: float = 2.0,
    max_hours: float | None = None, max_core_hours: float | None = None,
) -> Ending:  # fmt: skip
    """Plan, start pilots, watch, seal, merge.

    Args:
        spec: the run.
        home: where it lives.
        found: what it is about.
        engine: runs the pilots.
        about: says which engine that is, for whoever resumes the run.
        share: so many times longer than the whole of this machine does a pilot take.
        pilots: at most.
        show: is told the progress.
        look_s: between two looks.
        max_hours: that the run may take in all; `None` leaves it as it is.
        max_core_hours: the same, times the cores that workers have.

    Raises:
        StoreError: the ledger cannot be read or written, or is damaged.
    """
    ledger, index, clock = found.ledger, found.manifest, SystemClock()
    _plan(found, pilots, share)
    failpoint.reach("coord.plan")
    name = f"{socket.gethostname()}-{os.getpid()}-{ledger.nonce()[:8]}"
    control = Control(ledger)
    if control.look().state == "running":
        control.give("running", by=name, pilots=pilots, max_hours=max_hours, max_core_hours=max_core_hours,
                     anyway=control.order.anyway)  # fmt: skip

    def finish(seal: Seal) -> dict[str, Any]:
        place = f"{spec.run}.{seal.digest}"
        results = home.results(place)
        files = merge(ledger, seal, results, spec.base)
        report = make_report(ledger, spec, index, seal, files, home=home.where, now_s=clock.wall())
        results.put("ro-crate-metadata.json", crate(spec, report, files, span_of(results), clock.wall()))
        results.put("report.json", json.dumps(report, indent=2, ensure_ascii=False).encode())
        return {"results": f"{home.where}/{place}", "seal": seal.digest, "counts": report["counts"], "report": report}

    coordinator = Coordinator(
        ledger, clock, SystemRandom(), engine,
        name=name, about=about, rows=index.rows, pace=spec.pace,
        finish=lambda seal: ledger.patiently(lambda: finish(seal)),  # the same bytes each time
        show=show, look_s=look_s,
        assigns=not trusted(ledger),
    )  # fmt: skip
    return coordinator.run()


def _plan(found: Found, pilots: int, share: float) -> None:
    ledger, known = found.ledger, found.estimate
    if ledger.read(PLAN) is not None:
        return
    bounds = plan_bounds(
        ManifestRows(ledger).walk(),
        known.costs(share),
        total_s=known.total_s * share,
        pilots=pilots,
        round_trip_s=known.round_trip_s,
    )
    ledger.create(PLAN, {"bounds": bounds})


def _check_pattern(spec: Spec, ledger: Ledger, index: Index) -> float:
    rows = sample_rows(ManifestRows(ledger), index, SystemRandom(), most=1024)
    return KeyPattern(spec.key_pattern).check(row.key for row in rows)
