"""Reads a run's bucket, and nothing else, and says what is wrong with it: the invariants of a finished run.

I1  the leaves tile the manifest's rows exactly once
I2  every leaf has one sealed attempt, whose bytes have the sealed sha256
I3  the sealed attempts have one status for each row
I8  no row was given up without a record of its own failure, or three claims of it alone that ended without a word
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from buoy.batch.layout import Cell, parse_claim

#: From the bytes of an attempt to (row, status, whether it was given up) of each row.
Decode = Callable[[bytes], list[tuple[int, str, bool]]]

STATUSES = {"ok", "failed", "changed", "deleted", "empty", "skipped"}


def faults_of(objects: Mapping[str, bytes], rows: int, decode: Decode, *, lossy: bool = False) -> list[str]:
    """What is wrong; empty if nothing is.

    Args:
        objects: the ledger's objects by key.
        rows: of the manifest.
        decode: reads an attempt.
        lossy: whether the store has lost objects, so that records besides the sealed ones may be missing.
    """
    if "seal.json" not in objects:
        return ["there is no seal"]
    if "done.json" not in objects:
        return ["there is no done.json"]
    found: list[str] = []
    leaves = json.loads(objects["seal.json"])["leaves"]
    stop, seen = 0, []
    for start, end, _cell, attempt in leaves:
        if start != stop:
            found.append(f"I1: rows {stop} to {start} are covered {'twice' if start < stop else 'never'}")
        stop = end
        data = objects.get(attempt["key"])
        if data is None or hashlib.sha256(data).hexdigest() != attempt["sha256"]:
            found.append(f"I2: {attempt['key']} is not what was sealed")
            continue
        lines = decode(data)
        if [row for row, _, _ in lines] != list(range(start, end)):
            found.append(f"I3: {attempt['key']} has the rows {[row for row, _, _ in lines]}, not {start} to {end}")
        found += [f"I3: row {row} is {status!r}" for row, status, _ in lines if status not in STATUSES]
        seen += lines
    if stop != rows:
        found.append(f"I1: {stop} of {rows} rows are covered")
    if not lossy:
        found += _committed(objects, leaves)
        found += [fault for row, _, gave_up in seen if gave_up for fault in _given_up(objects, row)]
    return found


def _committed(objects: Mapping[str, bytes], leaves: list[Any]) -> list[str]:
    """Every sealed attempt is what a `fin` says."""
    parts = [part for key, data in objects.items() if key.startswith("fin/") for part in json.loads(data)["parts"]]
    known = {(p["start"], p["stop"], p["attempt"]["key"]) for p in parts if p.get("attempt")}
    return [f"I2: no fin names {a['key']}" for start, end, _, a in leaves if (start, end, a["key"]) not in known]


def _given_up(objects: Mapping[str, bytes], row: int) -> list[str]:
    deaths = 0
    for key, data in objects.items():
        if key.startswith("claim/") and parse_claim(key)[0][:2] == Cell(row, row + 1)[:2]:
            pilot = json.loads(data)["pilot"]
            bye = objects.get(f"gone/{pilot}")
            deaths += bye is None or json.loads(bye)["by"] != pilot
    return [] if deaths >= 3 else [f"I8: row {row} was given up after {deaths} deaths"]
