"""`buoy models` and `buoy check`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from buoy import golden
from buoy.cli.talk import say
from buoy.errors import BuoyError, ManifestError
from buoy.folders import find_folder, model_folders
from buoy.manifest import Manifest
from buoy.model import Model


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def models(as_json: bool) -> None:
    """List the models that are found here: task, version, maturity, weights."""
    entries = [_entry(folder) for folder in model_folders()]
    if as_json:
        click.echo(json.dumps(entries))
        return
    for entry in entries:
        click.echo("  ".join(f"{entry[column]:{width}}" for column, width in _COLUMNS.items()).rstrip())
    if not entries:
        say("no models here; start with: buoy new NAME, or set BUOY_FUNCTIONS")


_COLUMNS = {"name": 18, "task": 8, "version": 8, "maturity": 10, "weights": 8, "folder": 0}


def _entry(folder: Path) -> dict[str, str]:
    try:
        manifest = Manifest.load(folder)
    except ManifestError as error:
        return dict.fromkeys(_COLUMNS, "-") | {
            "name": folder.name,
            "weights": "manifest is wrong",
            "folder": str(folder),
            "error": error.message,
        }
    there = (folder / manifest.weights.file).is_file()
    return {
        "name": manifest.name,
        "task": manifest.task,
        "version": manifest.version,
        "maturity": manifest.maturity,
        "weights": "here" if there else "missing",
        "folder": str(folder),
    }


@click.command()
@click.argument("model", required=False)
@click.option("--update", is_flag=True, help="Take today's results of the samples as the expected ones.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Compare what a service wrote into this folder, instead of running the model.",
)
@click.option("--json", "as_json", is_flag=True, help="The faults as JSON.")
def check(model: str | None, update: bool, results: Path | None, as_json: bool) -> int:
    """Check MODEL, or all models found here: manifest, weights, sample pictures."""
    folders = [find_folder(model)] if model else model_folders()
    faults = {str(folder): list(_faults(folder, update, results)) for folder in folders}
    if as_json:
        click.echo(json.dumps(faults, ensure_ascii=False))
    else:
        for place, found in faults.items():
            click.echo("\n".join(found) if found else f"{place}: all well")
    if not folders:
        say("no models here; start with: buoy new NAME")
    return 1 if any(faults.values()) else 0


def _faults(folder: Path, update: bool, results: Path | None) -> Iterator[str]:
    try:
        model = Model.load(folder)
        name = model.manifest.name
        if name != folder.resolve().name:
            yield f"{folder}: the manifest says name: {name}; folder and name must be the same"
        if update:
            golden.write_expected(model, folder)
        if not (folder / golden.EXPECTED).is_file():
            say(f"{folder}: nothing is expected of its samples yet; keep today's results with: buoy check --update")
            return
        yield from golden.differences(folder, golden.written_in(results) if results else model.predict)
    except BuoyError as error:
        yield str(error)
