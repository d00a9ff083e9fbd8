"""Pictures of 12 megapixels, decoded in full and, as a manifest may choose, at reduced size."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import yaml

from bench.book import Book, alternate, quantile
from bench.pictures import scenes
from bench.serve.candidates import Direct, Service
from bench.serve.setting import Setting

__all__ = ["large"]

_CLIENTS = 4


def large(setting: Setting, book: Book) -> None:
    """Throughput over the plain loop, and one picture at a time, with the detector."""
    model, rounds = setting.networks["detector"], max(3, setting.rounds - 2)
    pictures = [_grainy(path) for path in scenes(setting.folder / "large", 6, "3000x4000", seed=9)]
    size = sum(path.stat().st_size for path in pictures) / len(pictures) / (1 << 20)
    book.say(f"12 megapixels, {size:.1f} MiB each")
    with ExitStack() as stack:
        plain = stack.enter_context(Direct("plain", model, pictures, pin=True))
        default = stack.enter_context(Direct("plain", model, pictures, pin=False))
        services = {}
        for name, folder in (("buoy", model), ("buoy, reduced decoding", _reduced(model, setting.folder))):
            services[name] = stack.enter_context(replace(setting.buoy, name=name).serve(folder, setting.folder))
            services[name].until_answered(pictures[0].read_bytes())
        loops = {"plain": plain, "plain, default allocator": default}
        rates = alternate(
            rounds,
            {name: (lambda loop=loop: loop.rate(setting.seconds)) for name, loop in loops.items()}
            | {name: _rate(setting, service, pictures) for name, service in services.items()},
            book,
        )
        alone = {name: service.load(pictures, 3.0, clients=1).begun_ms for name, service in services.items()}
    for name, values in rates.items():
        book.add("12 megapixels, rate", name, statistics.median(values), "pictures/s", rounds=values)
    book.ratios("12 megapixels over plain", rates, "plain", {}, label="plain, pinned")
    for name, times in alone.items():
        book.add("12 megapixels, one client, p50", name, quantile(times, 0.5), "ms")


def _rate(setting: Setting, service: Service, pictures: list[Path]) -> Callable[[], float]:
    return lambda: service.load(pictures, setting.seconds + 0.3, clients=_CLIENTS).rate


def _grainy(path: Path) -> Path:
    """With the noise of a real camera, and so as large as a file of one: drawn scenes are smooth."""
    pixels = cv2.imread(str(path))
    noise = np.empty_like(pixels)
    cv2.randn(noise, 8, 5)
    cv2.imwrite(str(path), cv2.add(pixels, noise), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def _reduced(model: Path, folder: Path) -> Path:
    """The same model with the choice in its manifest."""
    home = folder / "reduced" / model.name
    shutil.copytree(model, home, ignore=shutil.ignore_patterns("sample", "*.py", "*.md"))
    manifest = yaml.safe_load((home / "manifest.yaml").read_text())
    manifest["input"]["decode"] = "reduced"
    (home / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return home
