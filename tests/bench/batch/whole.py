"""Whole runs of the local engine against the same pictures without a ledger, a store or a table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from bench.book import Book, alternate
from bench.measure import baseline, best_limit, run
from bench.pictures import MODEL, scenes
from buoy.store import open_store
from support.minio import MinioServer, minio

__all__ = ["whole"]

_BUOY = str(Path(sys.executable).with_name("buoy"))
#: So many pictures are also looked at by an invocation each.
_ALONE = 40


class Runs:
    """Makes runs over one source, each to a place of its own, so that none finds its work done."""

    def __init__(self, source: str, out: str, env: dict[str, str]) -> None:
        self._source, self._out, self._env = source, out, env
        self._numbers = count()
        self.reports: list[dict[str, Any]] = []

    def work(self) -> float:
        """Seconds of a run whose listing and estimate were made before, from the command to the tables."""
        place = self._place()
        self._run(place, "--dry-run")
        return self._run(place)

    def all(self) -> float:
        """Seconds of a run from nothing."""
        return self._run(self._place())

    def _place(self) -> str:
        return f"{self._out}/{next(self._numbers)}"

    def _run(self, place: str, *options: str) -> float:
        command = [_BUOY, "batch", "run", str(MODEL), self._source, "--out", place, "--json", *options]
        began_s = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, **self._env}, capture_output=True, text=True, check=False)
        took_s = time.perf_counter() - began_s
        if done.returncode:
            raise SystemExit(f"buoy batch run ended with {done.returncode}: {done.stderr[-2000:]}")
        if not options:
            self.reports.append(json.loads(done.stdout.splitlines()[-1])["done"]["report"])
        return took_s


def whole(folder: Path, book: Book, *, number: int, rounds: int) -> None:
    """Pictures a second, ledger requests for each, and one invocation for each picture beside it."""
    source = _source(folder / "source", number)
    paths = sorted(source.glob("*.jpg"))
    limit = best_limit(MODEL, paths[:200])
    with minio(folder / "minio") as server:
        env = _env(server) | {"XDG_STATE_HOME": str(folder / "state")}
        _upload(server, paths)
        runs = {
            "folder": Runs(str(source), str(folder / "out"), env),
            "minio": Runs("s3://archive/", "s3://results", env),
        }
        took = alternate(
            rounds,
            {
                "limit": lambda: baseline(limit, MODEL, paths).loop_s,
                "split": lambda: _split(paths),
                **{name: each.work for name, each in runs.items()},
            },
            book,
        )
        for name, seconds in took.items():
            book.add("rate", name, number / statistics.median(seconds), "pictures/s",
                     rounds=[number / each for each in seconds], note=_NOTES[name])  # fmt: skip
        rates = {name: [number / each for each in seconds] for name, seconds in took.items()}
        ours = {name: rates[name] for name in ("folder", "minio")}
        book.ratios("run", {"limit": rates["limit"], **ours}, "limit", {"folder": ">= 0.92", "minio": ">= 0.85"})
        book.ratios("run", {"split": rates["split"], **ours}, "split", {"folder": ">= 0.97"})
        for name, each in runs.items():
            _tell_ledger(name, each.reports[-rounds:], book)
        _tell_alone(runs["folder"], paths, book)


_NOTES = {
    "limit": "callers x threads in one process, nothing written",
    "split": "two processes with half of the pictures each, start of both included",
    "folder": "command to tables, start of all processes included",
    "minio": "the same from a MinIO on this machine, results there too",
}


def _tell_ledger(name: str, reports: list[dict[str, Any]], book: Book) -> None:
    requests = [each["ledger_requests"] / each["objects"] for each in reports]
    share = [100 * each["ledger_s"] / each["worked_s"] for each in reports]
    note = f"{reports[-1]['cells']} cells in {reports[-1]['worked_s']:.0f} s"
    book.add("ledger requests for each picture", name, statistics.median(requests), "", goal="<= 0.05",
             rounds=requests, note=note)  # fmt: skip
    book.add("ledger time", name, statistics.median(share), "%", goal="<= 1", rounds=share, note=note)


def _tell_alone(runs: Runs, paths: list[Path], book: Book) -> None:
    """A run from nothing over all pictures, against so many invocations of one picture."""
    ours_s = runs.all()
    began_s = time.perf_counter()
    for path in paths[:_ALONE]:
        run([_BUOY, "predict", str(MODEL), str(path), "-o", str(path.parent.parent / "alone")])
    alone_s = (time.perf_counter() - began_s) / _ALONE * len(paths)
    book.add("wall time over one invocation for each picture", "folder", ours_s / alone_s, "x", goal="<= 0.15",
             note=f"{len(paths):,} pictures, {ours_s:.0f} s from nothing; {_ALONE} invocations took"
             f" {alone_s / len(paths):.2f} s each")  # fmt: skip


def _split(paths: list[Path]) -> float:
    """From the start of two processes to the end of the later one."""
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(baseline, "1x1", MODEL, paths[start::2]) for start in range(2)]
        return max(each.result().wall_s for each in halves)


def _source(folder: Path, number: int) -> Path:
    """So many names of 20 drawn pictures."""
    drawn = scenes(folder.parent / "scenes")
    folder.mkdir()
    for each in range(number):
        os.link(drawn[each % len(drawn)], folder / f"cam{each % 3}_{each:06d}.jpg")
    return folder


def _env(server: MinioServer) -> dict[str, str]:
    return {
        "BUOY_S3_ENDPOINT": server.endpoint,
        "BUOY_S3_ACCESS_KEY": server.access_key,
        "BUOY_S3_SECRET_KEY": server.secret_key,
    }


def _upload(server: MinioServer, paths: list[Path]) -> None:
    store = open_store(server.endpoint, access_key=server.access_key, secret_key=server.secret_key)
    for bucket in ("archive", "results"):
        store.create_bucket(bucket)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: store.put("archive", path.name, path), paths))
