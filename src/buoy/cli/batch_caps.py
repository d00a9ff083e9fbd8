"""What a run may take, as options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from buoy.batch.ledger import Ledger

__all__ = ["cap_options", "more_options", "raised"]

_Cap = click.FloatRange(min=0.0, min_open=True)


def cap_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The caps of a run in all."""
    command = click.option("--max-core-hours", type=_Cap, help="The same, times the cores of the workers.")(command)
    return click.option("--max-hours", type=_Cap, help="The run pauses when it has taken so many.")(command)


def more_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a run may take from now on."""
    command = click.option("--max-core-hours", type=_Cap, help="So many core hours more.")(command)
    return click.option("--max-hours", type=_Cap, help="So many hours more.")(command)


def raised(ledger: Ledger, hours: float | None, core_hours: float | None) -> dict[str, float]:
    """The caps of a run that may take so much more than it has."""
    from buoy.batch.beats import Beats, vitals_of

    vitals = vitals_of(Beats(ledger, 0.0).read().values())
    caps = {"max_hours": (vitals.elapsed_s, hours), "max_core_hours": (vitals.core_s, core_hours)}
    return {name: spent_s / 3600 + more for name, (spent_s, more) in caps.items() if more is not None}
