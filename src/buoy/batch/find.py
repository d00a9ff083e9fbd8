"""Finding a run by what a person calls it."""

from __future__ import annotations

from buoy.batch.area import Home
from buoy.errors import UsageError

__all__ = ["find_run"]


def find_run(text: str) -> tuple[Home, str]:
    """The run `OUT/NAME`, or the only one of `OUT`.

    Raises:
        UsageError: there is none, or there are several.
    """
    above, _, name = text.rstrip("/").rpartition("/")
    if above and above != "s3:/" and name in (home := Home(above)).runs():
        return home, name
    home = Home(text)
    runs = home.runs()
    if len(runs) == 1:
        return home, runs[0]
    if not runs:
        raise UsageError(f"there is no run at {text}", "begin one with: buoy batch run MODEL SOURCE --out OUT")
    raise UsageError(
        f"there are {len(runs)} runs at {text}", "name one: " + ", ".join(f"{text.rstrip('/')}/{r}" for r in runs)
    )
