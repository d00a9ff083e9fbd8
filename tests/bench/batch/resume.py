"""Going on with a large run whose processes were all killed: from the command to the first new claim.

The run is over tiny pictures, a cell each; the ledger says of all but the last hundred cells that they have ended.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.book import Book
from buoy.batch.fin import Attempt, Part, commit
from buoy.batch.layout import PLAN, Cell, claim_key
from buoy.batch.ledger import Ledger
from buoy.store import open_store
from support.batch import BatchRun
from support.minio import minio
from support.tiny import make_model, picture_with_squares, png

__all__ = ["resume"]

_CELLS, _LEFT = 40_000, 100


def resume(folder: Path, book: Book) -> None:
    """On a folder, and on a MinIO of this machine."""
    model = make_model(folder / "models")
    source = _source(folder / "source")
    with minio(folder / "minio") as server:
        env = {
            "BUOY_S3_ENDPOINT": server.endpoint,
            "BUOY_S3_ACCESS_KEY": server.access_key,
            "BUOY_S3_SECRET_KEY": server.secret_key,
        }
        os.environ.update(env)
        open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key).create_bucket("out")
        for name, out in (("folder", str(folder / "out")), ("minio", "s3://out/runs")):
            run = BatchRun(model, str(source), out, {"BUOY_BATCH_LEASE_S": "90"})
            ended = run.run("--dry-run")
            assert ended.returncode == 0, ended.stderr
            _fill(run.ledger)
            book.add("resume to the first claim", name, _first_claim_s(run), "s", goal="<= 30",
                     note=f"{_CELLS:,} cells, {_LEFT} of them left")  # fmt: skip


def _source(folder: Path) -> Path:
    folder.mkdir()
    first = folder / "000000.png"
    first.write_bytes(png(picture_with_squares((1, 1))))
    for number in range(1, _CELLS):
        os.link(first, folder / f"{number:06d}.png")
    return folder


def _fill(ledger: Ledger) -> None:
    assert ledger.create(PLAN, {"bounds": [*range(_CELLS + 1)]}).won
    cells = [Cell(row, row + 1) for row in range(_CELLS - _LEFT)]

    def end(cell: Cell) -> None:
        attempt = Attempt(key=f"att/{cell.id}", etag="e", sha256="0" * 64, size_bytes=1, counts={"ok": 1}, lines=1)
        ledger.create(claim_key(cell, 1), {"pilot": "gone"})
        commit(ledger, cell, [Part(cell.start, cell.stop, attempt)])

    ledger.create("gone/gone", {"by": "gone"})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(end, cells))


def _first_claim_s(run: BatchRun) -> float:
    after = claim_key(Cell(_CELLS - _LEFT, _CELLS - _LEFT + 1), 0)
    ledger, began_s = run.ledger, time.perf_counter()
    command = run.start()
    try:
        while not ledger.names("claim/", after):
            if command.poll() is not None or time.perf_counter() - began_s > 300:
                raise SystemExit(f"nothing was claimed: {command.communicate()[1][-2000:]}")
            time.sleep(0.05)
        return time.perf_counter() - began_s
    finally:
        run.kill_everything()
        command.communicate()
