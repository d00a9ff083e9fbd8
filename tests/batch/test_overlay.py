"""The rows of retries over those of the runs below, however the work was divided."""

from __future__ import annotations

from itertools import count, pairwise
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buoy.batch.area import Home
from buoy.batch.bases import FAILED, retry_spec
from buoy.batch.clock import SystemClock
from buoy.batch.fin import Attempt
from buoy.batch.layout import DONE, SPEC
from buoy.batch.ledger import Ledger, tally
from buoy.batch.overlay import counts_of, tables_of
from buoy.batch.pilot import Done
from buoy.batch.rows import encode
from buoy.batch.seal import Leaf, Seal, make_seal
from buoy.batch.spec import ModelPin, Spec
from buoy.errors import StoreError

PIN = ModelPin(folder="tiny", name="tiny", version="1", weights_sha256="0", maturity="demo", manifest_sha256="0")
STATUSES = st.sampled_from(["ok", "ok", "failed", "changed", "deleted", "empty", "skipped"])
#: Of each object its status, and how many rows of which kind it has in the table.
OBJECTS = st.lists(st.tuples(STATUSES, st.integers(1, 3)), max_size=30)
numbers = count()


def sealed(home: Home, spec: Spec, objects: list[tuple[str, int]], seed: int) -> Seal:
    """A run that is done, its work divided by chance."""
    ledger = Ledger(home.run(spec.run, make=True), SystemClock(), Random(seed))
    ledger.create(SPEC, {"spec": msgspec.to_builtins(spec), "fingerprint": spec.fingerprint})
    random = Random(seed)
    cuts = random.sample(range(1, len(objects)), min(len(objects) - 1, random.randrange(6))) if objects else []
    bounds = [0, *sorted(cuts), *([len(objects)] if objects else [])]
    leaves = []
    for start, stop in pairwise(bounds):
        done = [done_of(row, *objects[row], f"{spec.run}/{row}") for row in range(start, stop)]
        stored = ledger.store(f"att/{start}", encode(done))
        counts = tally({each.status: 1} for each in done)
        attempt = Attempt(
            key=stored.key, etag=stored.etag, sha256=stored.sha256, size_bytes=stored.size_bytes, counts=counts
        )
        leaves.append(Leaf(start, stop, str(start), attempt))
    ledger.create(DONE, {"counts": tally(leaf.attempt.counts for leaf in leaves)})
    return make_seal(ledger, leaves)


def done_of(row: int, status: str, lines: int, key: str) -> Done:
    """A zip that is fine may have pictures in it that are not."""
    kinds = [status, *(["failed", "ok"] if status == "ok" else [status])[: lines - 1]]
    return Done(row, status, "", [{"row": row, "key": key, "item": str(n), "status": k} for n, k in enumerate(kinds)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("homes")


@given(OBJECTS, st.lists(OBJECTS, max_size=2), st.integers(0, 99))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_object_is_there_once_with_its_last_rows(folder: Any, first: Any, later: Any, seed: int) -> None:
    home = Home(str(folder / str(next(numbers))))
    spec = Spec(source="/nowhere", model=PIN)
    seal = sealed(home, spec, first, seed)
    wanted = [done_of(row, *each, f"{spec.run}/{row}") for row, each in enumerate(first)]
    for number, statuses in enumerate(later):
        below = retry_spec(home, spec.run)
        failed = [row for row, each in enumerate(wanted) if each.status in FAILED]
        assert (below is None) == (not failed)
        if below is None:
            break
        spec = below
        objects = [(statuses[n % len(statuses)] if statuses else ("failed", 1)) for n in range(len(failed))]
        seal = sealed(home, spec, objects, seed + number)
        for own, row in enumerate(failed):
            wanted[row] = done_of(row, *objects[own], f"{spec.run}/{own}")
    ledger = Ledger(home.run(spec.run), SystemClock(), Random(1))
    tables = list(tables_of(ledger, seal, spec.base))
    lines = [line for table in tables for line in table.select(["row", "key", "item", "status"]).to_pylist()]
    assert lines == [line for each in wanted for line in each.lines]
    assert counts_of(seal, spec.base) == tally({each.status: 1} for each in wanted)


@pytest.mark.parametrize(("number", "says"), [(1, "before its last object"), (3, "more objects than have failed")])
def test_a_retry_that_does_not_fit_is_refused(folder: Any, number: int, says: str) -> None:
    home, spec = Home(str(folder / f"unfit-{number}")), Spec(source="/nowhere", model=PIN)
    sealed(home, spec, [("failed", 1), ("ok", 1), ("deleted", 2)], 1)
    retry = retry_spec(home, spec.run)
    assert retry is not None
    seal = sealed(home, retry, [("ok", 1)] * number, 1)
    with pytest.raises(StoreError, match=says):
        list(tables_of(Ledger(home.run(retry.run), SystemClock(), Random(1)), seal, retry.base))
