"""What a run is about, as options of the command line say it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from buoy.cli.talk import say

if TYPE_CHECKING:
    from buoy.batch.spec import Base, Filters, Spec

__all__ = ["base_of", "filter_options", "filters_of"]

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", str(value).strip().upper())
        if found is None or (found[3] and not found[2]):
            self.fail(f"{value!r} is no size: write 200000, 200kB or 1.5MiB", param, ctx)
        return round(float(found[1]) * (_BINARY if found[3] else _UNITS)[found[2]])


class _Date(click.ParamType[float]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no date: write 2024-01-31, or 2024-01-31T12:00Z", param, ctx)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


_OPTIONS = (
    click.option("--where", default="", help="Glob over keys; * matches slashes too."),
    click.option("--suffix", "suffixes", multiple=True, help="Only such files.  [default: pictures and zips]"),
    click.option("--since", "since_s", type=_Date(), help="Only objects changed since then (2024-01-31T12:00Z)."),
    click.option("--until", "until_s", type=_Date(), help="Only objects changed before then."),
    click.option("--min-size", "least_bytes", type=_Size(), default=0, help="Only objects of that size (20kB, 1MiB)."),
    click.option("--max-size", "most_bytes", type=_Size(), help="Only objects up to that size."),
    click.option("--list", "listed", metavar="FILE", help="Only what is in FILE: CSV, JSONL or Parquet with a column "
                 "key, or the manifest.json of an S3 inventory."),
    click.option("--new-since", metavar="RUN", help="Only what is new or changed since RUN, or the 'last' such run."),
)  # fmt: skip


def filter_options(command: Any) -> Any:
    """Add the options that choose objects."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filters_of(chosen: dict[str, Any]) -> Filters:
    """The filters among the options."""
    from buoy.batch.spec import PICTURES, Filters

    suffixes = tuple(_dotted(suffix) for suffix in chosen["suffixes"]) or PICTURES
    names = ("where", "since_s", "until_s", "least_bytes", "most_bytes")
    return Filters(suffixes=suffixes, **{name: chosen[name] for name in names})


def base_of(new_since: str | None, spec: Spec, home: Any) -> Base | None:
    """The run that a catch-up builds on; without an earlier one it is about everything."""
    from buoy.batch.bases import last_run, since
    from buoy.batch.find import find_run

    if new_since is None:
        return None
    if new_since != "last":
        return since(*find_run(new_since), spec)
    run = last_run(home, spec)
    say(f"what is new since {run}" if run else f"there is no such run at {home.where} yet, so everything is new")
    return since(home, run, spec) if run else None


def _dotted(suffix: str) -> str:
    return (suffix if suffix.startswith(".") else f".{suffix}").lower()
