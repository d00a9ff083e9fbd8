"""Merging a sealed run: rows a second, and the memory that it takes, in a process of its own.

python -m bench.batch.merging FOLDER        merges the run that lies there
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from random import Random

from bench.book import Book
from bench.measure import own_peak_mib, run
from buoy.batch.area import Area
from buoy.batch.clock import SystemClock
from buoy.batch.fin import Attempt
from buoy.batch.layout import Cell
from buoy.batch.ledger import Ledger
from buoy.batch.merge import merge
from buoy.batch.pilot import Done
from buoy.batch.rows import encode
from buoy.batch.seal import Leaf, make_seal, read_seal
from buoy.store.folder import FolderStore

__all__ = ["merging"]

#: A million objects; one in four has two findings, one in a hundred failed.
_CELLS, _CELL_ROWS = 1000, 1000


def merging(folder: Path, book: Book) -> None:
    """Twice, since the same seal has to give the same bytes."""
    command = [sys.executable, "-m", "bench.batch.merging"]
    run([*command, "fill", str(folder)])  # not here: a process inherits the peak of the one that starts it
    seal = read_seal(_ledger(folder))
    assert seal
    lines = sum(leaf.attempt.lines for leaf in seal.leaves)
    digests = []
    for _ in range(2):
        took = run([*command, "merge", str(folder)])
        digests.append([_digest(path) for path in sorted((folder / "out").iterdir())])
    book.add("merge", "buoy", lines / took.loop_s, "rows/s", goal=">= 150000",
             note=f"{lines:,} rows of {_CELLS:,} cells to Parquet and CSV")  # fmt: skip
    book.add("merge, peak memory", "buoy", took.peak_mib, "MiB", goal="<= 300")
    book.add("merge, files that differ in a second one", "buoy", digests[0] != digests[1], "", goal="<= 0")


def _fill(folder: Path) -> None:
    """Attempts as pilots write them, and their seal."""
    ledger, chance, leaves = _ledger(folder), Random(3), []
    for number in range(_CELLS):
        cell = Cell(number * _CELL_ROWS, (number + 1) * _CELL_ROWS)
        done = [_done(row, chance) for row in range(cell.start, cell.stop)]
        stored = ledger.store(f"att/{cell.id}-0001-bench", encode(done))
        lines = sum(len(each.lines) for each in done)
        attempt = Attempt(
            key=stored.key, etag=stored.etag, sha256=stored.sha256, size_bytes=stored.size_bytes, lines=lines,
            counts={"ok": _CELL_ROWS},
        )  # fmt: skip
        leaves.append(Leaf(cell.start, cell.stop, cell.id, attempt))
    make_seal(ledger, leaves)


def _done(row: int, chance: Random) -> Done:
    key = f"2011/cam{row % 3}/20110101_{row:09d}.jpg"
    common = {
        "row": row, "key": key, "item": "", "status": "ok", "time": "2011-01-01T00:00:00Z", "camera": f"cam{row % 3}",
        "width": 1920, "height": 1080, "size_bytes": 900_000 + row % 1000, "sha256": f"{chance.getrandbits(256):064x}",
        "etag": f"{chance.getrandbits(128):032x}", "model": "obsea-fish", "version": "0.1.0",
        "weights_sha256": "0" * 64, "maturity": "demo", "task": "detect", "key_url": key,
    }  # fmt: skip
    if row % 100 == 99:
        failed = {"status": "failed", "error": "InputError", "message": f"{key}: this is no picture", "hint": "look"}
        return Done(row, "failed", "InputError", [common | failed])
    if row % 4:
        return Done(row, "ok", "", [common])
    boxes = [[chance.random() * 1000 for _ in range(4)] for _ in range(2)]
    found = [
        {
            "label": "fish",
            "class_id": 0,
            "score": chance.random(),
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        }
        for box in boxes
    ]
    return Done(row, "ok", "", [common | each for each in found])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ledger(folder: Path) -> Ledger:
    store = FolderStore(folder)
    for bucket in ("run", "out"):
        store.create_bucket(bucket)
    return Ledger(Area(store, "run"), SystemClock(), Random(1))


def _merge(folder: Path) -> None:
    ledger = _ledger(folder)
    seal = read_seal(ledger)
    assert seal
    began_s = time.perf_counter()
    merge(ledger, seal, Area(FolderStore(folder), "out"))
    took_s = time.perf_counter() - began_s
    print(json.dumps({"loop_s": took_s, "peak_mib": own_peak_mib()}))


if __name__ == "__main__":
    {"fill": _fill, "merge": _merge}[sys.argv[1]](Path(sys.argv[2]))
