"""Time series as files: tidy CSV, and NetCDF by the CF conventions."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from buoy.streams import netcdf, tidy
from buoy.streams.series import Series
from buoy.streams.spec import StreamSpec, read_spec
from support.frames import frame

pytest.importorskip("h5netcdf")
NOON_S = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())


def utc(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def spec() -> StreamSpec:
    return read_spec(
        {
            "name": "south",
            "source": "push:",
            "station": "obsea",
            "track": True,
            "lines": [{"name": "the-gate", "start": [0, 0], "end": [1, 1]}],
            "regions": [{"name": "reef", "points": [[0, 0], [1, 0], [1, 1]]}],
        }
    )


def series() -> Series:
    """A good minute, a minute's outage, one with a flagged frame beside a good one, one of flagged frames alone."""
    made = Series(spec(), ["fish", "crab"])
    event = {"line": "the-gate", "direction": "in", "track_id": 1, "label": "fish"}
    for at, count in enumerate((0, 2, 3, 1, 0, 4)):
        crossings = {"events": [event] if at == 3 else [], "regions": {"reef": {"now": {"fish": min(count, 2)}}}}
        made.frame(frame(at, utc(NOON_S + at), [("fish", 0.9)] * count), crossings)
    made.gap(utc(NOON_S + 5), utc(NOON_S + 120), "no connection")
    made.frame(frame(7, utc(NOON_S + 120), [("crab", 0.5)]))
    made.frame(frame(8, utc(NOON_S + 121), [("crab", 0.5)] * 5, ["blurred", "dark"]))
    made.frame(frame(9, utc(NOON_S + 180), [("crab", 0.5)], ["frozen"]))
    return made


def about(window_s: int = 60) -> netcdf.About:
    return netcdf.About("south", "obsea", "", window_s, series().columns())


def read(data: bytes) -> Any:
    import h5netcdf

    return h5netcdf.File(io.BytesIO(data), "r")


def text(attributes: Any) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not key.startswith("_Net")}


def test_csv_has_a_row_for_each_window_and_label() -> None:
    made = series()
    data = b"".join(tidy.encode(made.rows(), made.columns())).decode()
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    assert len(rows) == 4 * 2
    first = rows[0]
    for column, value in {
        "time_utc": "2026-01-31T12:00:00Z", "station": "obsea", "camera": "south", "taxon": "fish",
        "aphia_id": "126505",
        "n": "10", "maxn": "4", "mean_count": "1.666667", "presence": "1", "frames": "6", "seconds_observed": "5.0",
        "conf_threshold": "0.25", "model": "obsea-fish 1.0", "model_sha256": "0" * 64, "flags": "gap",
        "line_the-gate_in": "1", "line_the-gate_out": "0", "region_reef_maxn": "2", "gap_seconds": "55.0",
    }.items():  # fmt: skip
        assert first[column] == value, column
    outage = rows[2]
    assert (outage["frames"], outage["maxn"], outage["n"], outage["line_the-gate_in"]) == ("0", "", "", "")
    assert (outage["flags"], outage["gap_seconds"]) == ("gap", "60.0")
    assert rows[5]["taxon"] == "crab"
    assert (rows[5]["frames"], rows[5]["maxn"], rows[5]["flags"]) == ("1", "1", "blurred dark")


def test_csv_comes_in_pieces() -> None:
    rows = [{"a": 1, "b": None}] * 2500
    pieces = list(tidy.encode(iter(rows), ["a", "b"]))
    assert len(pieces) == 3
    assert b"".join(pieces) == b"a,b\r\n" + b"1,\r\n" * 2500
    assert b"".join(tidy.encode([], ["a", "b"])) == b"a,b\r\n"


def test_netcdf_follows_the_conventions() -> None:
    with read(netcdf.encode(series().rows(), about())) as file:
        assert file.attrs["Conventions"] == "CF-1.8"
        assert file.attrs["featureType"] == "timeSeries"
        assert file.attrs["model"] == "obsea-fish 1.0"
        assert file.attrs["model_sha256"] == "0" * 64
        time = file["time"]
        assert time.dimensions == ("time",)
        assert (time.attrs["standard_name"], time.attrs["axis"], time.attrs["bounds"]) == ("time", "T", "time_bounds")
        assert time.attrs["units"] == "seconds since 1970-01-01 00:00:00"
        assert time.attrs["calendar"] == "standard"
        assert time[:].tolist() == [NOON_S + 60 * at for at in range(4)]
        assert file["time_bounds"][:].tolist() == [[NOON_S + 60 * at, NOON_S + 60 * at + 60] for at in range(4)]
        assert file["station_name"].attrs["cf_role"] == "timeseries_id"
        assert file["station_name"][...] in ("obsea", b"obsea")
        names = [name.decode() if isinstance(name, bytes) else name for name in file["taxon_name"][:]]
        assert names == ["fish", "crab"]
        assert file["taxon_name"].attrs["standard_name"] == "biological_taxon_name"
        assert file["taxon_lsid"].attrs["standard_name"] == "biological_taxon_lsid"
        assert file["taxon_lsid"][0] in (lsid := "urn:lsid:marinespecies.org:taxname:126505", lsid.encode())


def test_netcdf_has_missing_values_where_there_is_no_effort() -> None:
    with read(netcdf.encode(series().rows(), about())) as file:
        maxn = file["maxn"]
        assert maxn.dimensions == ("time", "taxon")
        assert maxn.attrs["_FillValue"] == -1
        assert maxn[:].tolist() == [[4, 0], [-1, -1], [0, 1], [-1, -1]]
        assert maxn.attrs["cell_methods"] == "time: maximum"
        assert np.isnan(file["mean_count"].attrs["_FillValue"])
        mean = file["mean_count"][:]
        assert mean[0, 0] == pytest.approx(1.667, abs=5e-4)
        assert np.isnan(mean[1]).all()
        assert file["mean_count"].attrs["cell_methods"] == "time: mean"
        assert file["frames"][:].tolist() == [6, 0, 1, 0]
        assert file["frames_flagged"][:].tolist() == [0, 0, 1, 1]
        assert file["gap_seconds"][:].tolist() == [55.0, 60.0, 0.0, 0.0]
        assert file["gap_seconds"].attrs["units"] == "s"
        assert file["seconds_observed"][:].tolist() == [5.0, 0.0, 0.0, 0.0]
        assert file["line_the_gate_in"][:].tolist() == [[1, 0], [-1, -1], [0, 0], [-1, -1]]
        assert file["region_reef_maxn"][:, 0].tolist() == [2, -1, 0, -1]


def test_netcdf_flags_have_values_and_meanings() -> None:
    with read(netcdf.encode(series().rows(), about())) as file:
        ancillary = file["maxn"].attrs["ancillary_variables"].split()
        assert {"status", "flags"} <= set(ancillary) <= set(file.variables)
        assert set(file["maxn"].attrs["coordinates"].split()) <= set(file.variables)
        status = file["status"]
        meanings = dict(zip(status.attrs["flag_values"].tolist(), status.attrs["flag_meanings"].split(), strict=True))
        assert [meanings[value] for value in status[:].tolist()] == ["observed", "gap", "partly_flagged", "flagged"]
        flags = file["flags"]
        masks = dict(zip(flags.attrs["flag_meanings"].split(), flags.attrs["flag_masks"].tolist(), strict=True))
        found = [{name for name, mask in masks.items() if value & mask} for value in flags[:].tolist()]
        assert found == [{"gap"}, {"gap"}, {"dark", "blurred"}, {"frozen"}]
        assert flags.attrs["flag_masks"].dtype == flags.dtype


def test_netcdf_with_a_place() -> None:
    place = netcdf.Place(41.18212, 1.75257, 20.0)
    with read(netcdf.encode(series().rows(15), about(900), place=place)) as file:
        assert file["lat"].attrs["standard_name"] == "latitude"
        assert float(file["lat"][...]) == 41.18212
        assert file["lon"].attrs["units"] == "degrees_east"
        assert file["depth"].attrs["positive"] == "down"
        assert set(file["maxn"].attrs["coordinates"].split()) >= {"lat", "lon", "depth", "station_name"}
        assert file["maxn"][:].tolist() == [[4, 1]]
        assert file["time_bounds"][:].tolist() == [[NOON_S, NOON_S + 900]]


def test_netcdf_of_nothing_is_a_file_without_any_time() -> None:
    with read(netcdf.encode([], about())) as file:
        assert file.dimensions["time"].size == 0
        assert file["maxn"].dimensions == ("time", "taxon")


def test_the_service_reads_series_without_decoder_or_array() -> None:
    script = (
        "import sys, buoy.streams.series, buoy.streams.tidy; print(sorted({'av', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
