"""`buoy fdl`: the FDL files of the models."""

from __future__ import annotations

from pathlib import Path

import click

from buoy import fdl as fdl_
from buoy.cli.talk import say
from buoy.folders import find_folder, model_folders


@click.command()
@click.argument("model", required=False)
@click.option("--check", is_flag=True, help="Write nothing; list what is stale, with exit code 1 if anything is.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The FDL folder.  [default: fdl/ beside functions/]"
)
def fdl(model: str | None, check: bool, output: Path | None) -> int:
    """Write the FDL files of MODEL, or of all models found here; settings of the site are in fdl/site.yaml."""
    folder = output or fdl_.default_folder()
    models = [find_folder(model)] if model else model_folders()
    files = fdl_.tree(folder, models)
    orphans = [] if model else fdl_.orphans(folder, files)
    if not check:
        for path in fdl_.write(files):
            click.echo(path)
        for path in orphans:
            say(f"{path}: its model is gone; remove it")
        return 0
    stale = [*fdl_.stale(files), *orphans]
    for path in stale:
        click.echo(path)
    if stale:
        say("stale: run buoy fdl (and remove what has no model any more)")
    return 1 if stale else 0
