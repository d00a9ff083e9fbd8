"""Talk with the person at the terminal: on stderr, and only as much as is useful."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click

__all__ = ["progress", "say"]

T = TypeVar("T")


def say(text: str) -> None:
    """A line on stderr."""
    click.echo(text, err=True)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass the items through; on a terminal a bar with rate and remaining time, from the third second on."""
    if total < 2 or not sys.stderr.isatty():
        yield from items
        return
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}/s"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total, rate="-", visible=False)
    begin = time.monotonic()
    with bar:
        for count, item in enumerate(items, 1):
            spent_s = time.monotonic() - begin
            bar.update(task, completed=count, rate=f"{count / spent_s:.1f}", visible=spent_s > 2)
            yield item
