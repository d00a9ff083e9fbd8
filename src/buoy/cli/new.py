"""`buoy new`: the folder of a model to come."""

from __future__ import annotations

from pathlib import Path

import click

from buoy.cli.talk import say


@click.command()
@click.argument("name")
@click.option("--task", default="detect", show_default=True, help="What the network is for.")
@click.option("--into", type=click.Path(path_type=Path), help="Where its folder goes.  [default: functions/]")
def new(name: str, task: str, into: Path | None) -> None:
    """Write the folder of a new model NAME: everything but its weights."""
    from buoy import scaffold

    folder = scaffold.write_new(name, task, into or scaffold.default_place())
    click.echo(folder)
    say(f"next: put the network there as {name}.onnx, then: buoy check {folder if into else name}")
