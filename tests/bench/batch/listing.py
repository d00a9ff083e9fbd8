"""Listing a MinIO of this machine, near and as if it were far away: one page after the other, and as `buoy batch` does.

python -m bench.batch.listing KEYS DELAY_S
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from bench.measure import alternate, report
from buoy.batch.area import Area
from buoy.batch.clock import SystemClock
from buoy.batch.ledger import Ledger
from buoy.batch.listing import AreaLister
from buoy.batch.ranges import RANGES
from buoy.batch.sieve import Sieve
from buoy.batch.spec import Filters
from buoy.store import open_store
from buoy.store.folder import FolderStore
from buoy.store.s3 import S3Store
from support.far import far_away
from support.minio import minio

__all__ = ["measure"]

_AT_ONCE = 10_000


def measure(keys: int = 100_000, delay_s: float = 0.1, rounds: int = 2) -> None:
    """Print how long each way takes, and how much ranges gain."""
    with tempfile.TemporaryDirectory(prefix="buoy-listing-") as place, minio(Path(place) / "minio") as server:
        opened = {"access_key": server.access_key, "secret_key": server.secret_key}
        near = open_store(server.endpoint, **opened)
        assert isinstance(near, S3Store)
        _fill(near, keys)
        with far_away(server.port, delay_s) as endpoint:
            far = open_store(endpoint, **opened)
            took: dict[str, Callable[[], float]] = {}
            for name, store in (("near", near), ("far", far)):
                area = Area(store, "archive", "2011/")
                took[f"{name}_serial"] = lambda area=area: _timed(keys, lambda: sum(1 for _ in area.walk()))  # type: ignore[misc]
                took[f"{name}_buoy"] = lambda area=area, far=name == "far": _listed(Path(place), area, keys, far=far)  # type: ignore[misc]
            taken = alternate(rounds, **took)
        what = f"listing of {keys:,} keys"
        report(f"{what}, {delay_s:g} s away", taken, "far_buoy", "far_serial", more_is_better=True, goal=2.0, unit="s")
        report(f"{what}, near", taken, "near_buoy", "near_serial", more_is_better=True, goal=0.8, unit="s")


def _timed(keys: int, count: Callable[[], int]) -> float:
    began_s = time.perf_counter()
    assert count() == keys
    return time.perf_counter() - began_s


def _listed(place: Path, area: Area, keys: int, *, far: bool) -> float:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        store = FolderStore(Path(folder))
        store.create_bucket("run")
        ledger = Ledger(Area(store, "run"), SystemClock(), Random(1))
        lister = AreaLister(area, Sieve(Filters(), area.prefix), ledger)
        took_s = _timed(keys, lambda: sum(1 for _ in lister.objects("", 0)))
        assert (ledger.read(RANGES) is not None) == far
        return took_s


def _fill(store: S3Store, keys: int) -> None:
    """Tiny objects, many with each request: MinIO takes archives apart."""
    store.create_bucket("archive")
    for start in range(0, keys, _AT_ONCE):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(start, min(keys, start + _AT_ONCE)):
                entry = tarfile.TarInfo(f"2011/cam{number * 4 // keys}/20110101_{number:09d}.jpg")
                entry.size = 1
                archive.addfile(entry, io.BytesIO(b"x"))
        store.client.put_object(
            Bucket="archive", Key=f"{start}.tar", Body=out.getvalue(), Metadata={"Snowball-Auto-Extract": "true"}
        )


if __name__ == "__main__":
    measure(int(sys.argv[1]), float(sys.argv[2]))
