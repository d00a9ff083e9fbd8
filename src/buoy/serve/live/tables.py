"""Time series as files: CSV for people and programs, NetCDF for archives."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FORMS", "encode"]

#: Form to media type; JSON is made by the route itself.
FORMS = {"json": "application/json", "csv": "text/csv; charset=utf-8"}

Row = Mapping[str, Any]


def encode(form: str, columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """The rows of a stream as the bytes of a file.

    Args:
        form: csv.
        columns: their order.
        rows: see `buoy.streams.series`; a missing value is `None`, and stays missing.
    """
    return _csv(columns, rows)


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
