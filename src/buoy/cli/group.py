"""The list of commands, and how errors leave the program."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

import click

from buoy.errors import BuoyError, UsageError, as_buoy_error
from buoy.version import VERSION

__all__ = ["FAILED_INPUTS", "cli", "run"]

#: Exit code of a command that finished, but not for every input.
FAILED_INPUTS = 3

#: Command to (where it is, what `buoy --help` says of it).
_COMMANDS = {
    "up": ("buoy.cli.up:up", "Serve models on this machine: a small OSCAR with buckets, jobs and a page."),
    "serve": ("buoy.cli.serve:serve", "Keep models in memory and answer requests over HTTP."),
    "predict": ("buoy.cli.predict:predict", "Run a model over files."),
    "batch": ("buoy.cli.batch:batch", "Run a model over a whole bucket or folder, and survive anything."),
    "check": ("buoy.cli.models:check", "Check model folders: manifest, weights, samples."),
    "models": ("buoy.cli.models:models", "List the models that are found here."),
    "new": ("buoy.cli.new:new", "Write the folder of a new model."),
    "import": ("buoy.cli.import_:import_", "Make a model folder from a checkpoint or an ONNX file."),
    "fdl": ("buoy.cli.fdl:fdl", "Write the FDL files of the models, or check that they are fresh."),
    "put": ("buoy.cli.client:put", "Upload files to a service of a running buoy."),
    "jobs": ("buoy.cli.client:jobs", "List the jobs of a running buoy."),
    "logs": ("buoy.cli.client:logs", "Show the log of a job."),
    "function": ("buoy.cli.function:function", "Answer one event of OSCAR (what fdl/script.sh runs)."),
}


class _Lazy(click.Group):
    """Imports a command when it runs; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="buoy")
def cli() -> None:
    """Turn a folder with a model into a service that watches the sea."""


def run(arguments: list[str]) -> int:
    """Run a command line and tell its exit code. Errors are one line on stderr; with --json, on stdout as JSON."""
    try:
        code = cli.main(arguments, prog_name="buoy", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except Exception as error:
        if os.environ.get("BUOY_DEBUG"):
            raise
        return _tell(as_buoy_error(error, "buoy"), as_json="--json" in arguments)


def _tell(error: BuoyError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.record()}, ensure_ascii=False))
    else:
        print(f"buoy: {error}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1
