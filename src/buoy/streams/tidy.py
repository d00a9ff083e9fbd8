"""Time series as CSV: a row for each window and label, missing values empty. UTF-8, RFC 4180 quoting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["encode"]

_ROWS = 1000


def encode(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[bytes]:
    """A header and the rows (see `buoy.streams.series`), in pieces of bounded size.

    Args:
        rows: values by column.
        columns: `Series.columns`; their order does not change between rows or files of a stream.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\r\n")
    out.writerow(columns)
    for number, row in enumerate(rows, 1):
        out.writerow([row[column] for column in columns])  # None is written as nothing
        if number % _ROWS == 0:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()
