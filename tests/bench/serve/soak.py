"""Hours in short: mixed sizes and formats without a pause; memory, descriptors and files must not grow."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path

import cv2
import psutil

from bench.book import Book
from bench.pictures import scenes
from bench.serve.candidates import Service
from bench.serve.load import Seen
from bench.serve.setting import Setting
from bench.serve.start import resident_mib

__all__ = ["soak"]

_CLIENTS = 4
#: Height x width, px.
_SIZES = ("240x320", "480x640", "720x1280", "1080x1920", "1536x2048", "3000x4000")


def soak(setting: Setting, book: Book) -> None:
    """Growth of resident memory after a sixth of the time, which is the warm-up."""
    pictures = mixed(setting.folder / "mixed")
    with setting.buoy.serve(setting.networks["detector"], setting.folder) as service:
        service.until_answered(pictures[0].read_bytes())
        files = set(service.left_files())
        seen: list[Seen] = []
        loading = threading.Thread(
            target=lambda: seen.append(service.load(pictures, setting.minutes * 60, clients=_CLIENTS))
        )
        loading.start()
        samples: list[tuple[float, float]] = []
        began_s, open_first = time.perf_counter(), 0
        while loading.is_alive():
            loading.join(2.0)
            samples.append((time.perf_counter() - began_s, resident_mib(service)[0]))
            open_first = open_first or (_descriptors(service) if samples[-1][0] > setting.minutes * 10 else 0)
        left, open_last = set(service.left_files()) - files, _descriptors(service)
    _tell(setting, book, samples, seen[0])
    book.add("soak, temporary files left", "buoy", len(left), "files", goal="<= 0")
    book.add("soak, descriptors more than after the warm-up", "buoy", open_last - open_first, "", goal="<= 0",
             note="counted when the clients have gone")  # fmt: skip


def _tell(setting: Setting, book: Book, samples: list[tuple[float, float]], seen: Seen) -> None:
    end_s = setting.minutes * 60
    early = [mib for at_s, mib in samples if end_s / 6 <= at_s <= end_s / 3]
    late = [mib for at_s, mib in samples if end_s * 5 / 6 <= at_s <= end_s]
    first, last = statistics.median(early), statistics.median(late)
    slope = statistics.linear_regression(*zip(*[(s, m) for s, m in samples if s >= end_s / 6], strict=True)).slope
    most = max(mib for _, mib in samples)
    note = (
        f"{first:.0f} to {last:.0f} MiB RSS in {setting.minutes:g} min, {most:.0f} at the most; slope after the warm-up"
    )
    note += f" {slope * 3600:+.1f} MiB/h; {seen.sent:,} pictures, {seen.statuses}"
    book.add("soak, growth", "buoy", (last / first - 1) * 100, "%", goal="<= 3", note=note)


def _descriptors(service: Service) -> int:
    count = 0
    for process in service.tree():
        with suppress(psutil.Error):
            count += process.num_fds()
    return count


def mixed(folder: Path) -> list[Path]:
    """Every size as JPEG, and the smaller ones as PNG."""
    made: list[Path] = []
    for number, size in enumerate(_SIZES):
        drawn = scenes(folder / size, 3, size, seed=20 + number)
        made += drawn
        if number < 4:
            png = drawn[0].with_suffix(".png")
            cv2.imwrite(str(png), cv2.imread(str(drawn[0])))
            made.append(png)
    return made
