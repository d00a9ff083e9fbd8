"""The pictures that are measured with: scenes drawn by the demo model's own script, always the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support.need import CHECKOUT

__all__ = ["MODEL", "pictures", "scenes"]

MODEL = CHECKOUT / "functions" / "obsea-fish"


def scenes(folder: Path, count: int = 20, size: str = "1080x1920", seed: int = 5) -> list[Path]:
    """Draw `count` different JPEGs of `size` (HEIGHTxWIDTH, px)."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(MODEL / "scenes.py"), str(folder), "--count", str(count)]
    subprocess.run([*command, "--seed", str(seed), "--size", size], check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.jpg"))


def pictures(folder: Path, count: int) -> list[Path]:
    """`count` full-HD JPEGs: 20 drawn scenes, each under several names."""
    folder.mkdir(exist_ok=True)
    drawn = scenes(folder / "scenes")
    made = [folder / f"{number:03}.jpg" for number in range(count)]
    for number, path in enumerate(made):
        shutil.copyfile(drawn[number % len(drawn)], path)
    return made
