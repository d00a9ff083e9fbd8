"""pyarrow, loaded when a table is read or written, which is never in the other parts of buoy."""

from __future__ import annotations

import io
from typing import Any

from buoy.errors import UsageError

__all__ = ["arrow", "parquet", "read_table", "write_table"]


def arrow() -> Any:
    """The `pyarrow` package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise UsageError("tables need pyarrow, which is not installed", "pip install 'buoy[tables]'") from error
    return pyarrow


def parquet() -> Any:
    """The `pyarrow.parquet` module."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet


def write_table(table: Any) -> bytes:
    """A table as the bytes of a Parquet file; the same table gives the same bytes."""
    out = io.BytesIO()
    parquet().write_table(table, out, compression="zstd")
    return out.getvalue()


def read_table(data: bytes) -> Any:
    """The table of a Parquet file."""
    return parquet().read_table(arrow().BufferReader(data), use_threads=False)
