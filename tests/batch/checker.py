"""Reads a run's bucket, and nothing else, and says what is wrong with it: the invariants of a finished run.

I1  the leaves tile the manifest's rows exactly once
I2  every leaf has one sealed attempt, whose bytes have the sealed sha256
I3  the sealed attempts have one status for each row, and so have the files of the results
I8  no row was given up without a record of its own failure, or three claims of it alone that ended without a word
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow
import pyarrow.parquet

from buoy.batch.layout import Cell, parse_claim
from support.batch import BatchRun, decode_attempt

#: From the bytes of an attempt to (row, status, whether it was given up) of each row.
Decode = Callable[[bytes], list[tuple[int, str, bool]]]

STATUSES = {"ok", "failed", "changed", "deleted", "empty", "skipped"}
NO_RESULT = {"failed", "changed", "deleted"}

Line = dict[str, Any]


def faults_of_run(run: BatchRun, rows: int) -> list[str]:
    """What is wrong with the ledger and with the files of a run that builds on no other."""
    objects = run.objects()
    return faults_of(objects, rows, decode_attempt) or faults_of_files(objects, run.results())


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


def faults_of_files(objects: Mapping[str, bytes], files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with the files of the results, by the manifest and the seal.

    Args:
        objects: the ledger's objects by key.
        files: by name.
    """
    shards = sorted(key for key in objects if key.startswith("manifest/shard-"))
    keys = [line["key"] for shard in shards for line in _lines(objects[shard])]
    lines = _lines(files["results.parquet"])
    found = _order(keys, [(line["row"], line["key"]) for line in lines])
    by_row = {row: list(group) for row, group in groupby(lines, lambda line: int(line["row"]))}
    for start, stop, _cell, attempt in json.loads(objects["seal.json"])["leaves"]:
        here = [by_row[row] for row in range(start, stop) if row in by_row]
        counts = Counter(_status(each) for each in here)
        if counts != attempt["counts"]:
            found.append(f"I3: rows {start} to {stop} have {dict(counts)}, sealed are {attempt['counts']}")
        if (number := sum(map(len, here))) != attempt["lines"]:
            found.append(f"I3: rows {start} to {stop} have {number} lines, sealed are {attempt['lines']}")
    failures = _lines(files["failures.parquet"])
    columns = failures[0] if failures else ()
    if failures != [{name: line[name] for name in columns} for line in lines if line["status"] in NO_RESULT]:
        found.append("I3: failures.parquet is not what has no result")
    for name, table in (("results", lines), ("failures", failures)):
        if not _same(list(csv.reader(io.StringIO(files[f"{name}.csv"].decode(), newline="")))[1:], table):
            found.append(f"I3: {name}.csv is not {name}.parquet")
    return found


def _order(keys: Sequence[str], seen: Sequence[tuple[int, str]]) -> list[str]:
    """The lines of an object stand together, objects in the order of the manifest, none twice."""
    if len(set(keys)) < len(keys):
        return ["I3: the manifest has a key twice"]
    objects = [each for each, _ in groupby(seen)]
    if objects == list(enumerate(keys)):
        return []
    pairs = zip(objects, enumerate(keys), strict=False)
    first = next((f"{ours}, not {due}" for ours, due in pairs if ours != due), "another end")
    return [f"I3: results.parquet has {len(objects)} objects of {len(keys)}, and {first}"]


def _status(lines: Sequence[Line]) -> str:
    """A zip is fine if anything in it is."""
    return "ok" if any(line["status"] == "ok" for line in lines) else str(lines[0]["status"])


def _lines(data: bytes) -> list[Line]:
    found: list[Line] = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    return found


def _same(texts: Sequence[Sequence[str]], lines: Sequence[Line]) -> bool:
    return len(texts) == len(lines) and all(
        len(words) == len(line) and all(_equal(word, value) for word, value in zip(words, line.values(), strict=True))
        for words, line in zip(texts, lines, strict=True)
    )


def _equal(word: str, value: Any) -> bool:
    return not word if value is None else type(value)(word) == value
