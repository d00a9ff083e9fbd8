"""What all parts of a run have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.serve.candidates import BUOY, Kind

__all__ = ["Setting"]


@dataclass
class Setting:
    """Networks, pictures, candidates, and how long to measure."""

    #: For logs and temporary files.
    folder: Path
    #: Model folders: `detector`, `small`.
    networks: dict[str, Path]
    #: Full-HD JPEGs.
    pictures: list[Path]
    rounds: int = 5
    #: Of one round of one candidate.
    seconds: float = 3.0
    minutes: float = 30.0
    #: With more options of the command line where they were asked for.
    buoy: Kind = BUOY
    others: list[Kind] = field(default_factory=list)
