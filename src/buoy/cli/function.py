"""`buoy function`, for the list of commands; `buoy.cli.main` takes a shorter way to the same place."""

from __future__ import annotations

import click


@click.command()
def function() -> int:
    """Answer one event of OSCAR, as the environment describes it (INPUT_FILE_PATH, TMP_OUTPUT_DIR, BUOY_MODEL)."""
    from buoy.function import main

    return main()
