"""The manifest of many synthetic keys: memory, bytes for each key, time against the bare listing.

The store is made up: a listing gives keys as an archive of cameras has them, with etags that cannot be guessed. The
lister, the filters and the ledger (a folder) are the real ones. What is measured runs in a process of its own:

    python -m bench.batch.manifest bare|manifest|list KEYS FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from bench.measure import Run, alternate, own_peak_mib, report, run
from buoy.batch.area import Area
from buoy.batch.clock import SystemClock
from buoy.batch.ledger import Ledger
from buoy.batch.list_source import ListLister
from buoy.batch.listing import AreaLister
from buoy.batch.manifest import Lister, write_manifest
from buoy.batch.sieve import Sieve
from buoy.batch.spec import Filters, ListPin
from buoy.store import Object, Page
from buoy.store.folder import FolderStore

__all__ = ["SyntheticStore", "measure", "probe"]

_BEGAN_S = 1_293_840_000  # 2011-01-01
_FILTERS = Filters(where="2011/*")


class SyntheticStore:
    """Lists so many keys of four cameras, one every 20 s; each page is made when it is asked for."""

    def __init__(self, keys: int) -> None:
        self._keys = keys

    def list(self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, markers: bool = False) -> Page:
        first = int(after.rpartition("_")[2].removesuffix(".jpg")) + 1 if after else 0
        last = min(first + limit, self._keys)
        digests = hashlib.shake_128(str(first).encode()).digest(16 * (last - first)).hex()
        objects = [
            Object(
                bucket,
                f"2011/cam{number * 4 // self._keys}/20110101_{number:09d}.jpg",
                900_000 + number * 7919 % 300_000,
                digests[place : place + 32],
                float(_BEGAN_S + number * 20 // 4),
            )
            for number, place in zip(range(first, last), range(0, 32 * (last - first), 32), strict=True)
        ]
        return Page(objects, objects[-1].key if last < self._keys else "")


def probe(kind: str, keys: int, folder: Path) -> dict[str, Any]:
    """List, and but for `bare` write it down, `list` from a list in no order; seconds, bytes for each key, peak MiB."""
    ledger = _ledger(folder)
    area, sieve = Area(SyntheticStore(keys), "archive"), Sieve(_FILTERS)  # type: ignore[arg-type]
    lister: Lister = AreaLister(area, sieve, ledger)
    if kind == "list":
        pin = ListPin(where=str(folder / "list.csv"), sha256=_write_list(folder / "list.csv", keys))
        lister = ListLister(pin, "s3://archive/", area, sieve, _FILTERS)
    began_s = time.perf_counter()
    if kind == "bare":
        rows = sum(each.fate == "" for each in lister.objects("", 0))
    else:
        rows = write_manifest(ledger, lister, began_s=2e9).rows
    took_s = time.perf_counter() - began_s
    stored = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    peak_mib = own_peak_mib()
    return {"loop_s": took_s, "rows": rows, "bytes_per_key": stored / keys, "peak_mib": peak_mib}


def measure(keys: int = 10_000_000, rounds: int = 3) -> None:
    """Print the figures, and whether they meet their goals."""
    last: dict[str, Run] = {}

    def one(kind: str) -> float:
        with tempfile.TemporaryDirectory(prefix="buoy-manifest-") as folder:
            last[kind] = run([sys.executable, "-m", "bench.batch.manifest", kind, str(keys), folder])
            sizes[kind] = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet")) / keys
        return last[kind].loop_s

    sizes: dict[str, float] = {}
    taken = alternate(rounds, bare=lambda: one("bare"), manifest=lambda: one("manifest"))
    report(f"manifest of {keys:,} keys, time", taken, "manifest", "bare", more_is_better=False, goal=1.3, unit="s")
    for what, value, goal in (
        ("peak memory, MiB", last["manifest"].peak_mib, 300.0), ("bytes for each key", sizes["manifest"], 25.0),
    ):  # fmt: skip
        print(f"manifest of {keys:,} keys, {what}: {value:.1f} (goal <= {goal:g}:"
              f" {'met' if value <= goal else 'MISSED'})", flush=True)  # fmt: skip


def _write_list(path: Path, keys: int) -> str:
    with path.open("w") as file:
        file.write("key,size,etag\n")
        for number in range(keys):
            key = number * 7919 % keys
            file.write(f"2011/cam{key % 4}/{key:09d}.jpg,{900_000 + key},{hashlib.md5(b'%d' % key).hexdigest()}\n")
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def _ledger(folder: Path) -> Ledger:
    store = FolderStore(folder)
    store.create_bucket("run")
    return Ledger(Area(store, "run"), SystemClock(), Random(1))


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
