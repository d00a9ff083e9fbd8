"""Time series as NetCDF 4, by the CF conventions 1.8: one station, `featureType = "timeSeries"`.

Values without effort are missing (`_FillValue`). `status` says of each window whether and how it was observed, and
`gap_seconds` for how much of it an outage is known.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from buoy.errors import UsageError
from buoy.version import VERSION

__all__ = ["FLAGS", "STATUS", "About", "Place", "encode"]

#: Meanings of the bits of `flags`, from the lowest.
FLAGS = ("dark", "blurred", "frozen", "unreadable", "gap")
#: Meanings of the values of `status`, from 0.
STATUS = ("observed", "partly_flagged", "flagged", "gap")

_LSID = "urn:lsid:marinespecies.org:taxname:"
_MISSING = -1

Rows = Sequence[dict[str, Any]]


class Place(NamedTuple):
    """Where the camera is."""

    #: Degrees north and east, WGS 84.
    latitude: float
    longitude: float
    #: Metres below the surface.
    depth: float | None = None


class About(NamedTuple):
    """What the rows are of."""

    stream: str
    station: str
    camera: str
    #: Length of a window.
    window_s: int
    #: `Series.columns`: those of lines and regions become variables of their own.
    columns: Sequence[str]


class _Variable(NamedTuple):
    """One variable by (time, taxon), from a column of the rows."""

    dtype: str
    long_name: str
    cell_methods: str


_BY_TAXON = {
    "n": _Variable("i4", "sum over frames of the individuals found in each", "time: sum"),
    "maxn": _Variable("i4", "MaxN: most individuals found in one frame", "time: maximum"),
    "mean_count": _Variable("f8", "mean number of individuals in a frame", "time: mean"),
    "presence": _Variable("i1", "1 if any individual was found, 0 if none", "time: maximum"),
}
_BY_TIME = {
    "frames": ("i4", "1", "effort: frames that were looked at and have no flag"),
    "frames_flagged": ("i4", "1", "frames that were looked at and left out for their flags"),
    "seconds_observed": ("f8", "s", "effort: time between frames without flags that follow each other"),
    "gap_seconds": ("f8", "s", "time of the window for which an outage of the source is known"),
    "conf_threshold": ("f8", "1", "score from which on a detection was counted"),
}


def encode(rows: Rows, about: About, *, place: Place | None = None) -> bytes:
    """The file; of a series without any window, one without any time.

    Args:
        rows: of `Series.rows`: every window with every label.
        about: what they are of.
        place: of the camera. CF wants it; without, the file has no `lat` and `lon`.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        import h5netcdf
    except ImportError as error:
        raise UsageError("NetCDF needs the extra series", "pip install 'buoy[series]'") from error
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        _Writer(file, rows, about).write(place)
    return buffer.getvalue()


class _Writer:
    """Fills one file."""

    def __init__(self, file: Any, rows: Rows, about: About) -> None:
        self._file = file
        self._rows = rows
        self._about = about
        self._camera = about.camera or about.stream
        self._taxa = {row["taxon"]: row["aphia_id"] for row in rows}
        #: The first row of each window: the columns that all its rows share.
        self._windows = rows[:: max(1, len(self._taxa))]
        self._shape = (len(self._windows), len(self._taxa))
        self._coordinates = "station_name taxon_name taxon_lsid"

    def write(self, place: Place | None) -> None:
        """All of it."""
        self._file.dimensions = {"time": self._shape[0], "taxon": self._shape[1], "bound": 2}
        self._global()
        self._time()
        self._station(place)
        self._names()
        for name, variable in self._variables().items():
            self._by_taxon(name, variable)
        for name, (dtype, units, long_name) in _BY_TIME.items():
            fill = np.nan if dtype == "f8" else _MISSING
            data = [fill if row[name] is None else row[name] for row in self._windows]
            made = self._make(name, ("time",), np.array(data, dtype), long_name=long_name, units=units, fill=fill)
            made.attrs["coordinates"] = "station_name"
            if name != "conf_threshold":
                made.attrs["cell_methods"] = "time: sum"
        self._quality()

    def _global(self) -> None:
        models = dict.fromkeys(row["model"] for row in self._rows if row["model"])
        weights = dict.fromkeys(row["model_sha256"] for row in self._rows if row["model_sha256"])
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._file.attrs.update(
            {
                "Conventions": "CF-1.8",
                "featureType": "timeSeries",
                "title": f"Animals counted in the pictures of {self._camera}",
                "source": f"camera; {', '.join(models) or 'no model'}; buoy {VERSION}",
                "history": f"{now} written by buoy {VERSION}",
                "stream": self._about.stream,
                "station": self._about.station,
                "camera": self._camera,
                "model": ", ".join(models),
                "model_sha256": ", ".join(weights),
                "comment": "Machine observations. Windows without effort are missing, not zero.",
            }
        )

    def _time(self) -> None:
        begin = np.array([datetime.fromisoformat(row["time_utc"]).timestamp() for row in self._windows], "f8")
        time = self._make("time", ("time",), begin, long_name="beginning of the window")
        time.attrs.update(
            {
                "standard_name": "time",
                "units": "seconds since 1970-01-01 00:00:00",
                "calendar": "standard",
                "axis": "T",
                "bounds": "time_bounds",
            }
        )
        self._make("time_bounds", ("time", "bound"), np.stack([begin, begin + self._about.window_s], axis=1))

    def _station(self, place: Place | None) -> None:
        name = self._about.station or self._camera
        self._text("station_name", (), name, long_name="station", cf_role="timeseries_id")
        if place is None:
            return
        self._coordinates = f"lat lon {self._coordinates}"
        for key, standard, units, value in (
            ("lat", "latitude", "degrees_north", place.latitude),
            ("lon", "longitude", "degrees_east", place.longitude),
            ("depth", "depth", "m", place.depth),
        ):
            if value is not None:
                made = self._make(key, (), np.float64(value), long_name=standard, units=units)
                made.attrs["standard_name"] = standard
                if key == "depth":
                    made.attrs.update({"positive": "down", "axis": "Z"})
                    self._coordinates = f"depth {self._coordinates}"

    def _names(self) -> None:
        lsids = [f"{_LSID}{number}" if number else "" for number in self._taxa.values()]
        self._text("taxon_name", ("taxon",), list(self._taxa), standard_name="biological_taxon_name")
        self._text("taxon_lsid", ("taxon",), lsids, standard_name="biological_taxon_lsid")

    def _variables(self) -> dict[str, _Variable]:
        """Those by taxon, lines and regions included."""
        found = dict(_BY_TAXON)
        for column in self._about.columns:
            kind, _, name = column.partition("_")
            name, _, what = name.rpartition("_")
            if kind == "line":
                text = f"tracks that crossed the line {name}, direction {what}"
                found[column] = _Variable("i4", text, "time: sum")
            elif kind == "region":
                found[column] = _Variable("i4", f"MaxN in the region {name}", "time: maximum")
        return found

    def _by_taxon(self, column: str, variable: _Variable) -> None:
        fill = np.nan if variable.dtype == "f8" else _MISSING
        values = [fill if row[column] is None else row[column] for row in self._rows]
        data = np.array(values, variable.dtype).reshape(self._shape)
        name = column.replace("-", "_")  # CF allows letters, digits and underscores
        made = self._make(name, ("time", "taxon"), data, long_name=variable.long_name, units="1", fill=fill)
        made.attrs.update(
            {
                "cell_methods": variable.cell_methods,
                "coordinates": self._coordinates,
                "ancillary_variables": "status flags frames seconds_observed gap_seconds",
            }
        )

    def _quality(self) -> None:
        flags = [row["flags"].split() for row in self._windows]
        masks = np.array([1 << at for at in range(len(FLAGS))], "i1")
        bits = [sum(int(mask) for mask, flag in zip(masks, FLAGS, strict=True) if flag in found) for found in flags]
        made = self._make("flags", ("time",), np.array(bits, "i1"), long_name="what befell some frames of the window")
        made.attrs.update({"flag_masks": masks, "flag_meanings": " ".join(FLAGS), "coordinates": "station_name"})
        status = np.array([_status(row) for row in self._windows], "i1")
        made = self._make("status", ("time",), status, long_name="how the window was observed")
        values = np.arange(len(STATUS), dtype="i1")
        made.attrs.update({"standard_name": "quality_flag", "flag_values": values, "flag_meanings": " ".join(STATUS)})
        made.attrs["coordinates"] = "station_name"

    def _make(
        self,
        name: str,
        dimensions: tuple[str, ...],
        data: NDArray[Any] | np.float64,
        *,
        long_name: str = "",
        units: str = "",
        fill: float | None = None,
    ) -> Any:
        compress = {"compression": "gzip", "shuffle": True} if data.size and dimensions else {}
        made = self._file.create_variable(name, dimensions, data.dtype, fillvalue=fill, **compress)
        if data.size:
            made[...] = data
        if long_name:
            made.attrs["long_name"] = long_name
        if units:
            made.attrs["units"] = units
        return made

    def _text(self, name: str, dimensions: tuple[str, ...], text: str | list[str], **attributes: str) -> None:
        import h5py

        made = self._file.create_variable(name, dimensions, h5py.string_dtype())
        if isinstance(text, str):
            made[...] = text
        elif text:
            made[:] = np.array(text, object)
        made.attrs.update(attributes)


def _status(row: dict[str, Any]) -> int:
    if row["frames"]:
        return STATUS.index("partly_flagged" if row["frames_flagged"] else "observed")
    return STATUS.index("flagged" if row["frames_flagged"] else "gap")
