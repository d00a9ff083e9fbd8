"""`python -m bench [NAME...]`: all measurements, or those named; `serve` and `batch` are in folders of their own."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.measure import alternate, baseline, best_limit, report, run
from bench.pictures import MODEL, pictures
from buoy import machine
from support.gateway import Gateway, start_gateway
from support.need import CHECKOUT

BUOY = Path(sys.executable).parent / "buoy"
COUNT = 200
ROUNDS = 5


def predict(paths: list[Path], folder: Path) -> None:
    """Pictures a second of `buoy predict`, whole processes, start included; and its peak memory."""
    limit = best_limit(MODEL, paths)
    peaks: dict[str, list[float]] = {"plain": [], "buoy": []}

    def ours() -> float:
        took = run([str(BUOY), "predict", str(MODEL), *map(str, paths), "-o", str(folder / "out")])
        peaks["buoy"].append(took.peak_mib)
        return took.wall_s

    def plain() -> float:
        took = baseline("plain", MODEL, paths)
        peaks["plain"].append(took.peak_mib)
        return took.wall_s

    taken = alternate(ROUNDS, plain=plain, limit=lambda: baseline(limit, MODEL, paths).wall_s, buoy=ours)
    report("predict, pictures/s", taken, "buoy", "plain", more_is_better=True, goal=1.15, unit="s")
    report("predict, pictures/s", taken, "buoy", "limit", more_is_better=True, goal=0.9, unit="s")
    report("predict, peak MiB", peaks, "buoy", "plain", more_is_better=False, goal=1.3, unit="MiB")


def cold(paths: list[Path], folder: Path) -> None:
    """Process start to result of `buoy function`, against import + session + first run."""
    out = folder / "function"
    env = {"BUOY_MODEL": str(MODEL), "INPUT_FILE_PATH": str(paths[0]), "TMP_OUTPUT_DIR": str(out)}
    taken = alternate(
        15,
        bare=lambda: baseline("bare", MODEL, paths[:1]).wall_s,
        buoy=lambda: run([str(BUOY), "function"], env).wall_s,
    )
    report("cold start, s", taken, "buoy", "bare", more_is_better=False, goal=1.3, unit="s")


def events(paths: list[Path], folder: Path) -> None:
    """Pictures a second from files dropped into the bucket to results in it, with a warm worker."""
    limit = best_limit(MODEL, paths)
    with start_gateway(folder / "events", functions=MODEL.parent, fdl=CHECKOUT / "fdl") as gateway:
        rounds = 0

        def ours() -> float:
            nonlocal rounds
            rounds += 1
            return drop(gateway, paths, f"round{rounds}")

        drop(gateway, paths[:4], "warm")
        taken = alternate(ROUNDS, limit=lambda: baseline(limit, MODEL, paths).loop_s, buoy=ours)
    report("events, pictures/s", taken, "buoy", "limit", more_is_better=True, goal=0.8, unit="s")


def latency(paths: list[Path], folder: Path) -> None:
    """Milliseconds from a dropped file to its result, less the inference itself, worker warm and idle."""
    with start_gateway(folder / "latency", functions=MODEL.parent, fdl=CHECKOUT / "fdl") as gateway:
        drop(gateway, paths[:4], "warm")
        beyond = []
        for number, path in enumerate(paths[:30]):
            took = drop(gateway, [path], f"one{number}")
            written = gateway.output("obsea-fish") / f"one{number}" / f"{path.name}.json"
            inference = msgspec.json.decode(written.read_bytes())["run"]["infer_ms"]
            beyond.append(took * 1000 - inference)
            time.sleep(0.05)
    beyond.sort()
    median, worst = statistics.median(beyond), beyond[int(len(beyond) * 0.95)]
    print(f"latency beyond inference, ms: median {median:.0f}, p95 {worst:.0f} (goal <= 150:"
          f" {'met' if median <= 150 else 'MISSED'})", flush=True)  # fmt: skip


def drop(gateway: Gateway, paths: list[Path], name: str) -> float:
    """Move files into the input folder as a user would; seconds until the last result is there."""
    inbox, outbox = gateway.inbox("obsea-fish") / name, gateway.output("obsea-fish") / name
    stage = inbox.parent.parent.parent / f".stage-{name}"
    stage.mkdir(parents=True)
    inbox.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, stage / path.name)
    begin = time.perf_counter()
    for path in paths:
        os.rename(stage / path.name, inbox / path.name)
    wanted = {f"{path.name}.json" for path in paths}
    while not (outbox.is_dir() and wanted <= set(os.listdir(outbox))):
        if time.perf_counter() - begin > 300:
            raise SystemExit(f"results did not come: {len(wanted - set(os.listdir(outbox)))} are missing")
        time.sleep(0.002)
    return time.perf_counter() - begin


MEASURES: dict[str, Callable[[list[Path], Path], None]] = {
    "predict": predict, "cold": cold, "events": events, "latency": latency,
}  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    names = sys.argv[1:] or list(MEASURES)
    if names[0].partition(".")[0] == "serve":
        from bench.serve.command import main as serve

        serve(names)
        return
    if names[0].partition(".")[0] == "batch":
        from bench.batch.command import main as batch

        batch(names)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        print(f"{platform.machine()}, {machine.cores()} cores, Python {platform.python_version()}, {COUNT} pictures"
              " of 1920 x 1080, allocator pinned in limit and buoy, default in plain and bare", flush=True)  # fmt: skip
        made = pictures(folder, COUNT)
        for name in names:
            MEASURES[name](made, folder)


if __name__ == "__main__":
    main()
