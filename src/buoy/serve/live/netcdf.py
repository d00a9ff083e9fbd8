"""Makes a NetCDF file of a stream's series: `python -m buoy.serve.live.netcdf <ASKED >FILE`.

A process of its own: what it needs (h5py, numpy) would weigh 40 MB in the process that answers requests. ASKED is JSON,
see `Asked`; with exit code 1, stderr has the error's record as JSON.

The file follows CF-1.8 (Climate and Forecast conventions, 9.2 and H.2.1): `featureType = "timeSeries"`, one station, a
second dimension for the taxa. What was not observed is missing, and `frames` and `seconds_observed` stand beside it.
"""

from __future__ import annotations

import io
import os
import sys
from datetime import datetime
from typing import Any

import msgspec

from buoy.errors import UsageError, as_buoy_error

__all__ = ["Asked", "make"]

#: Name, long name, units and method of what depends on time and taxon; whole numbers but for the last.
_COUNTS = (
    ("n", "animals found, summed over frames", "1", "time: sum"),
    ("maxn", "most animals found in one frame (MaxN)", "1", "time: maximum"),
    ("presence", "1 if any was found, 0 if none", "1", "time: maximum"),
    ("mean_count", "animals found in a frame, on average", "1", "time: mean"),
)
_EFFORT = (
    ("frames", "frames that were looked at and have no flag", "1"),
    ("frames_flagged", "frames with a flag, which count nowhere", "1"),
    ("seconds_observed", "time between frames that follow each other", "s"),
    ("gap_seconds", "time for which an outage is known", "s"),
)
_WORMS = "urn:lsid:marinespecies.org:taxname:"
_MISSING = -1


class Asked(msgspec.Struct, kw_only=True):
    """What is to be written."""

    stream: str
    station: str
    camera: str
    window_s: int
    columns: list[str]
    #: See `buoy.streams.series`.
    rows: list[dict[str, Any]]


def make(asked: Asked) -> bytes:
    """The file.

    Raises:
        UsageError: the extra `series` is not installed.
    """
    try:
        import h5netcdf
    except ImportError:
        raise UsageError("NetCDF needs the extra series", "pip install 'buoy[series]'") from None
    out = io.BytesIO()
    with h5netcdf.File(out, "w") as file:
        _fill(file, asked)
    return out.getvalue()


def _fill(file: Any, asked: Asked) -> None:
    import h5py

    text = h5py.string_dtype()
    times = list(dict.fromkeys(row["time_utc"] for row in asked.rows))
    taxa = list(dict.fromkeys(row["taxon"] for row in asked.rows))
    at = {(row["time_utc"], row["taxon"]): row for row in asked.rows}
    first = {row["time_utc"]: row for row in asked.rows}
    begins = [int(datetime.fromisoformat(time).timestamp()) for time in times]
    file.dimensions = {"time": len(times), "taxon": len(taxa), "nv": 2}

    def variable(name: str, dimensions: tuple[str, ...], kind: Any, data: Any, **attributes: Any) -> None:
        fill = {"fillvalue": attributes.pop("missing")} if "missing" in attributes else {}
        made = file.create_variable(name, dimensions, kind, **fill)
        made.attrs.update(attributes)
        if not dimensions or len(data):
            made[...] = data

    variable("time", ("time",), "i8", begins, standard_name="time", units="seconds since 1970-01-01T00:00:00Z",
             calendar="standard", axis="T", bounds="time_bounds")  # fmt: skip
    variable("time_bounds", ("time", "nv"), "i8", [[begin, begin + asked.window_s] for begin in begins])
    variable("station_name", (), text, asked.station or asked.stream, cf_role="timeseries_id", long_name="station")
    variable("taxon", ("taxon",), text, taxa, standard_name="biological_taxon_name")
    aphia = {row["taxon"]: row["aphia_id"] for row in asked.rows if row["aphia_id"]}
    lsids = [f"{_WORMS}{aphia[taxon]}" if taxon in aphia else "" for taxon in taxa]
    variable("taxon_lsid", ("taxon",), text, lsids, standard_name="biological_taxon_lsid")
    beside = "frames seconds_observed frames_flagged gap_seconds flags"
    counted = {"coordinates": "station_name taxon_lsid", "ancillary_variables": beside}
    own = [(name, name.replace("_", " "), "1", "time: sum") for name in asked.columns if _is_own(name)]
    for name, about, units, method in (*_COUNTS, *own):
        whole = name != "mean_count"
        missing = _MISSING if whole else float("nan")
        cells = [[_or(at.get((time, taxon), {}).get(name), missing) for taxon in taxa] for time in times]
        variable(name, ("time", "taxon"), "i4" if whole else "f8", cells, long_name=about, units=units,
                 cell_methods="time: maximum" if name.endswith("_maxn") else method, missing=missing,
                 **counted)  # fmt: skip
    for name, about, units in _EFFORT:
        variable(name, ("time",), "f8", [first[time][name] for time in times], long_name=about, units=units)
    _flags(variable, [first[time]["flags"].split() for time in times])
    variable("conf_threshold", ("time",), "f8", [_or(first[time]["conf_threshold"], float("nan")) for time in times],
             long_name="least score of a detection", units="1", missing=float("nan"))  # fmt: skip
    for name in ("model", "model_sha256"):
        variable(name, ("time",), text, [first[time][name] for time in times], long_name=name.replace("_", " "))
    file.attrs.update(
        Conventions="CF-1.8",
        featureType="timeSeries",
        title=f"Animals found by {asked.camera or asked.stream}",
        source="buoy: detections in frames of a camera; what was not observed is missing, not zero",
        stream=asked.stream,
        camera=asked.camera,
    )


def _flags(variable: Any, flags: list[list[str]]) -> None:
    """What befell a window, as bits."""
    known = ["dark", "blurred", "frozen", "gap", "unreadable"]
    masks = [1 << bit for bit in range(len(known))]
    values = [sum(mask for name, mask in zip(known, masks, strict=True) if name in each) for each in flags]
    import numpy as np

    variable("flags", ("time",), "i4", values, long_name="what befell the window", standard_name="status_flag",
             flag_masks=np.array(masks, np.int32), flag_meanings=" ".join(known))  # fmt: skip


def _is_own(column: str) -> bool:
    """Whether it is one of the stream's lines or regions."""
    return column.startswith(("line_", "region_"))


def _or(value: Any, missing: float) -> Any:
    return missing if value is None else value


def main() -> int:
    """Read what is asked, write the file; returns the exit code."""
    try:
        os.nice(10)
        made = make(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))
    except Exception as error:
        sys.stderr.write(msgspec.json.encode(as_buoy_error(error, "NetCDF").record()).decode())
        return 1
    sys.stdout.buffer.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
