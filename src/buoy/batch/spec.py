"""What a run is: everything that decides its results. The same spec is the same run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from buoy.batch.pilot import Pace
from buoy.errors import UsageError
from buoy.folders import find_folder
from buoy.manifest import Manifest
from buoy.results import ModelInfo

__all__ = [
    "PICTURES",
    "VIDEOS",
    "Base",
    "Filters",
    "Handling",
    "ListPin",
    "ModelPin",
    "Spec",
    "check_model",
    "pin_model",
]

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".zip")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".mpg", ".mpeg", ".m4v", ".webm", ".ts")


class Filters(Struct, frozen=True, kw_only=True):
    """Which objects of the source the run is about."""

    #: A glob over keys, relative to the source; `*` matches slashes too.
    where: str = ""
    #: Lower case, with their dots. Other objects become rows with the status `skipped`.
    suffixes: tuple[str, ...] = PICTURES
    #: Seconds since 1970, of the object's last change.
    since_s: float | None = None
    until_s: float | None = None
    least_bytes: int = 0
    most_bytes: int | None = None


class ListPin(Struct, frozen=True, kw_only=True):
    """A list of objects that somebody has, or the `manifest.json` of an inventory."""

    #: A path, or `s3://bucket/key`.
    where: str
    sha256: str


class Base(Struct, frozen=True, kw_only=True):
    """The run that this one builds on."""

    #: Its failed objects again, and all its others as they are; or what is new or changed since it was listed.
    kind: Literal["retry", "since"]
    run: str
    #: Where it lives.
    home: str
    #: Of its seal, or of its manifest.
    digest: str


class ModelPin(Struct, frozen=True, kw_only=True):
    """The model, so that no pilot works with another."""

    #: A name that `find_folder` knows, or a path.
    folder: str
    name: str
    version: str
    weights_sha256: str
    maturity: str
    #: sha256 of the manifest file: thresholds and classes are in it.
    manifest_sha256: str

    @property
    def info(self) -> ModelInfo:
        """As records have it."""
        return msgspec.convert(
            {
                "name": self.name,
                "version": self.version,
                "weights_sha256": self.weights_sha256,
                "maturity": self.maturity,
            },
            ModelInfo,
        )


class Handling(Struct, frozen=True, kw_only=True):
    """How pilots treat objects. Does not change what is found in them."""

    #: An object, or a picture in it, that takes longer is a failed one.
    item_timeout_s: float = 120.0
    #: An object that makes the process with the model take more memory is a failed one.
    #: By default four fifths of what the machine has for a pilot.
    memory_bytes: int = 0
    #: Bytes of objects that a pilot reads ahead.
    ahead_bytes: int = 64 << 20
    fetchers: int = 8


class Spec(Struct, frozen=True, kw_only=True):
    """One run."""

    #: `s3://bucket/prefix` or the absolute path of a folder.
    source: str
    model: ModelPin
    filters: Filters = Filters()
    #: How time, station and camera are read from keys.
    key_pattern: str = ""
    #: Of a video a frame is looked at every so many seconds.
    every_s: float = 1.0
    #: Only what it names, instead of everything that is in the source.
    listed: ListPin | None = None
    base: Base | None = None
    #: Raised to do again what was done already.
    again: int = 0
    pace: Pace = Pace()
    handling: Handling = Handling()

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides what the run does and finds; not of where the things lie that it is made of."""
        kept = {name: value for name, value in msgspec.to_builtins(self).items() if name not in ("pace", "handling")}
        for name, place in (("model", "folder"), ("listed", "where"), ("base", "home")):
            if kept[name] is None:
                del kept[name]
            else:
                del kept[name][place]
        return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()

    @property
    def series(self) -> str:
        """The fingerprint of the runs that do the same with what was new at their time."""
        return msgspec.structs.replace(self, base=None, listed=None, again=0).fingerprint

    @property
    def run(self) -> str:
        """The name of the run."""
        return f"{self.model.name}-{self.fingerprint[:10]}"


def pin_model(model: str) -> ModelPin:
    """Pin a model by name or folder.

    Raises:
        UsageError, ManifestError: there is none, or it is wrong.
    """
    folder = find_folder(model)
    manifest = Manifest.load(folder)
    return ModelPin(
        folder=model if len(Path(model).parts) == 1 and not os.path.isdir(model) else str(folder.absolute()),
        name=manifest.name,
        version=manifest.version,
        weights_sha256=manifest.weights.sha256,
        maturity=manifest.maturity,
        manifest_sha256=hashlib.sha256((folder / "manifest.yaml").read_bytes()).hexdigest(),
    )


def check_model(pin: ModelPin) -> Path:
    """The folder of the pinned model on this machine; by its name if the path is that of another machine.

    Raises:
        UsageError: there is none, or another model stands there.
    """
    named = len(Path(pin.folder).parts) == 1 or Path(pin.folder).is_dir()
    folder = pin.folder if named else pin.name
    try:
        here = msgspec.structs.replace(pin_model(folder), folder=pin.folder)
    except UsageError as error:
        if named:
            raise
        raise UsageError(f"{pin.folder} is not there, and {error.message}", "bring the run's model back") from error
    if here != pin:
        raise UsageError(
            f"{folder}: this is {here.name} {here.version} ({here.weights_sha256[:12]}), "
            f"the run is with {pin.name} {pin.version} ({pin.weights_sha256[:12]})",
            "bring that model back, or begin another run with this one",
        )
    return find_folder(folder)
