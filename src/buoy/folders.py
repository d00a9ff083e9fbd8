"""Where models are: folders with a manifest, by their path or their name."""

from __future__ import annotations

import os
from pathlib import Path

from buoy.errors import ManifestError, UsageError
from buoy.manifest import FILE_NAME

__all__ = ["find_folder", "model_folders"]


def find_folder(model: Path | str) -> Path:
    """The folder of a model given by path or by name.

    A name is looked up in the folders of `BUOY_FUNCTIONS` if that is set, else in the nearest
    `functions/` of this directory and those above it, else in that of the checkout that buoy runs from.

    Raises:
        UsageError: there is none; the message says where it was looked for and what is there.
    """
    path = Path(model)
    if (path / FILE_NAME).is_file():
        return path
    if len(path.parts) > 1 or path.is_dir():
        raise ManifestError(f"{path / FILE_NAME}: no such file", "a model folder holds one; start with: buoy new NAME")
    places = _places()
    for place in places:
        if (place / path / FILE_NAME).is_file():
            return place / path
    known = ", ".join(folder.name for folder in model_folders()) or "none"
    where = ", ".join(str(place) for place in places)
    raise UsageError(f"there is no model {str(model)!r} (looked in: {where})", f"models here: {known}")


def model_folders() -> list[Path]:
    """All model folders in the places where names are looked up, by name."""
    found = {
        folder.parent.name: folder.parent for place in reversed(_places()) for folder in place.glob(f"*/{FILE_NAME}")
    }
    return [found[name] for name in sorted(found)]


def _places() -> list[Path]:
    if chosen := os.environ.get("BUOY_FUNCTIONS"):
        return [Path(place) for place in chosen.split(os.pathsep) if place]
    here = Path.cwd()
    near = [folder / "functions" for folder in (here, *here.parents) if (folder / "functions").is_dir()]
    checkout = Path(__file__).resolve().parents[2] / "functions"
    return near[:1] or [checkout]
