"""Reads the services of a folder of FDL files, as OSCAR's clients do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from buoy.errors import BuoyError, ServiceError

__all__ = ["Definition", "default_folder", "definitions"]


class Definition(NamedTuple):
    """One service of one file: the JSON that a client would send, and the file's text."""

    body: dict[str, Any]
    text: str
    file: Path


def default_folder() -> Path | None:
    """`./fdl`, or that of the checkout which an editable install runs from."""
    checkout = Path(__file__).resolve().parents[3]
    return next((folder for folder in (Path.cwd() / "fdl", checkout / "fdl") if folder.is_dir()), None)


def definitions(folder: Path) -> Iterator[Definition | BuoyError]:
    """The services of `folder/*.yaml` and `folder/*/*.yaml`; what cannot be read comes as its error.

    Files without `functions.oscar` (`site.yaml`) are passed over. A script's path is relative to the
    FDL file, as for oscar-cli.
    """
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")]):
        try:
            text = file.read_text(encoding="utf-8")
            document = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            yield ServiceError(f"{file}: {error}", "an FDL file is YAML in UTF-8")
            continue
        functions = document.get("functions") if isinstance(document, dict) else None
        entries = functions.get("oscar") if isinstance(functions, dict) else None
        if not isinstance(entries, list):
            continue
        for entry in entries:
            yield from _services(entry, text, file)


def _services(entry: object, text: str, file: Path) -> Iterator[Definition | BuoyError]:
    if not isinstance(entry, dict):
        yield ServiceError(f"{file}: functions.oscar holds {entry!r}", "expected {<cluster>: {name: ..., ...}}")
        return
    for body in entry.values():
        if not isinstance(body, dict):
            yield ServiceError(f"{file}: functions.oscar holds no service", "expected {<cluster>: {name: ..., ...}}")
            continue
        script = body.get("script")
        if isinstance(script, str) and script:
            try:
                body = {**body, "script": (file.parent / script).read_text(encoding="utf-8")}
            except (OSError, UnicodeDecodeError) as error:
                yield ServiceError(f"{file}: script {script!r}: {error}", "its path is relative to the FDL file")
                continue
        yield Definition(body, text, file)
