"""The checker finds what can be wrong with the files of a run: each of them here is right but for one thing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from batch.checker import NO_RESULT, Line, faults_of_files

KEYS = [f"cam{row % 2}/{row}, of the morning.png" for row in range(6)]
LEAVES = [(0, 4), (4, 6)]


def result(row: int, status: str, score: float | None = None) -> Line:
    message = 'it ends early,\nbefore its "end"' if status == "failed" else None
    return {"row": row, "key": KEYS[row], "item": "", "status": status, "score": score, "message": message}


#: Two findings in row 1; in row 4 a zip of which one picture has failed.
LINES = [
    result(0, "ok"), result(1, "ok", 0.1), result(1, "ok", 0.7), result(2, "failed"), result(3, "empty"),
    result(4, "ok", 0.5), result(4, "failed"), result(5, "deleted"),
]  # fmt: skip
COUNTS = [{"ok": 2, "failed": 1, "empty": 1}, {"ok": 1, "deleted": 1}]
NAMES = list(LINES[0])


def parquet(lines: list[Line], names: list[str] = NAMES) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(table(lines, names), out)
    return out.getvalue()


def text(lines: list[Line], names: list[str] = NAMES) -> bytes:
    out = io.BytesIO()
    pyarrow.csv.write_csv(table(lines, names), out)
    return out.getvalue()


def table(lines: list[Line], names: list[str]) -> Any:
    kinds = {"row": pyarrow.int64(), "score": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in names])
    return pyarrow.Table.from_pylist([{name: line[name] for name in names} for line in lines], schema=schema)


def ledger(keys: list[str]) -> dict[str, bytes]:
    lines = (5, 3)
    leaves = [
        (start, stop, "", {"counts": counts, "lines": number})
        for (start, stop), counts, number in zip(LEAVES, COUNTS, lines, strict=True)
    ]
    shards = {
        f"manifest/shard-0000{number}.parquet": parquet([{"key": key} for key in part], ["key"])
        for number, part in enumerate((keys[:4], keys[4:]))
    }
    return {**shards, "seal.json": json.dumps({"leaves": leaves}).encode()}


def files(lines: list[Line]) -> dict[str, bytes]:
    """The four files that say the same."""
    failed, names = [line for line in lines if line["status"] in NO_RESULT], ["row", "key", "status", "message"]
    return {
        "results.parquet": parquet(lines), "results.csv": text(lines),
        "failures.parquet": parquet(failed, names), "failures.csv": text(failed, names),
    }  # fmt: skip


def test_files_that_are_right_have_no_fault() -> None:
    assert faults_of_files(ledger(KEYS), files(LINES)) == []


def without(row: int) -> list[Line]:
    return [line for line in LINES if line["row"] != row]


def swapped(one: int, other: int) -> list[Line]:
    keys = {one: KEYS[other], other: KEYS[one]}
    return [{**line, "key": keys.get(line["row"], line["key"])} for line in LINES]


WRONG: dict[str, Callable[[], list[Line]]] = {
    "a row is lost": lambda: without(3),
    "the last row is lost": lambda: without(5),
    "a line of a row is lost": lambda: LINES[:1] + LINES[2:],
    "a row is there twice": lambda: LINES[:4] + LINES[3:],
    "a row is there again at the end": lambda: LINES + LINES[:1],
    "two rows are in another order": lambda: [*LINES[:3], LINES[4], LINES[3], *LINES[5:]],
    "two rows have each other's keys": lambda: swapped(0, 3),
    "two rows of different statuses have each other's keys": lambda: swapped(2, 5),
    "a row has another status": lambda: [*LINES[:-1], result(5, "changed")],
    "a row has a status that is none": lambda: [result(0, "lost"), *LINES[1:]],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_all_files_alike_is_found_by_manifest_and_seal(name: str) -> None:
    assert faults_of_files(ledger(KEYS), files(WRONG[name]()))


def test_a_manifest_that_has_a_key_twice_is_found() -> None:
    assert faults_of_files(ledger([*KEYS[:5], KEYS[0]]), files([*LINES[:-1], {**LINES[-1], "key": KEYS[0]}]))


@pytest.mark.parametrize("name", ["failures.parquet", "failures.csv", "results.parquet", "results.csv"])
@pytest.mark.parametrize("row", [2, 5])
def test_a_row_that_one_file_alone_does_not_have_is_found(name: str, row: int) -> None:
    assert faults_of_files(ledger(KEYS), {**files(LINES), name: files(without(row))[name]})


def test_a_number_that_is_another_one_in_the_csv_file_is_found() -> None:
    other = [{**line, "score": line["score"] and line["score"] + 1e-9} for line in LINES]
    assert faults_of_files(ledger(KEYS), {**files(LINES), "results.csv": text(other)})
