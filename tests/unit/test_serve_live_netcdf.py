"""A stream's series as NetCDF: by the conventions, with what is missing missing."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from buoy.serve.live.netcdf import Asked, make
from buoy.streams.series import Series
from buoy.streams.spec import read_spec

h5netcdf = pytest.importorskip("h5netcdf")

SPEC = read_spec({
    "name": "reef", "source": "push:", "station": "OBSEA", "camera": "west", "track": True,
    "lines": [{"name": "gate", "start": [0, 0], "end": [1, 1]}],
})  # fmt: skip


def record(captured: str, *labels: str, flags: tuple[str, ...] = ()) -> bytes:
    frame = {"stream": "reef", "number": 0, "captured": captured, "flags": flags}
    found = [{"label": label, "taxon": {"aphia_id": 125559} if label == "fish" else {}} for label in labels]
    model = {"name": "tiny", "version": "1.0", "weights_sha256": "0" * 64}
    told = {"input": {"frame": frame}, "model": model, "parameters": {"score": 0.4}, "detections": found}
    return json.dumps(told).encode()


@pytest.fixture
def file() -> Any:
    series = Series(SPEC, ["fish", "crab"])
    series.frame(record("2026-01-31T12:00:00.000Z", "fish", "fish"))
    series.frame(record("2026-01-31T12:00:30.000Z", "fish"))
    series.gap("2026-01-31T12:01:00.000Z", "2026-01-31T12:02:00.000Z", "silence")
    series.frame(record("2026-01-31T12:02:10.000Z", "crab", flags=("dark",)))
    series.frame(record("2026-01-31T12:03:10.000Z"))
    asked = Asked(
        stream="reef", station="OBSEA", camera="west", window_s=60, columns=series.columns(), rows=series.rows()
    )
    with h5netcdf.File(io.BytesIO(make(asked)), "r") as opened:
        yield opened


def test_counts_stand_by_time_and_taxon_and_what_was_not_observed_is_missing(file: Any) -> None:
    assert file["time"][:].tolist() == [1769860800 + 60 * minute for minute in range(4)]
    assert [str(each, "utf-8") if isinstance(each, bytes) else each for each in file["taxon_name"][:]] == [
        "fish",
        "crab",
    ]
    missing = file["maxn"].attrs["_FillValue"]
    assert file["maxn"][:].tolist() == [[2, 0], [missing, missing], [missing, missing], [0, 0]]
    assert np.isnan(file["mean_count"][1]).all()
    assert file["mean_count"][0].tolist() == [1.5, 0.0]
    assert file["frames"][:].tolist() == [2, 0, 0, 1]
    assert file["gap_seconds"][:].tolist() == [0, 60, 0, 0]
    assert file["line_gate_in"].shape == (4, 2)


def test_flags_are_bits_with_meanings(file: Any) -> None:
    meanings = file["flags"].attrs["flag_meanings"].split()
    masks = dict(zip(meanings, file["flags"].attrs["flag_masks"], strict=True))
    flags = file["flags"][:]
    assert flags[1] == masks["gap"]
    assert flags[2] & masks["dark"]
    assert flags[3] == 0


def test_it_says_what_it_is_by_the_conventions(file: Any) -> None:
    assert (file.attrs["Conventions"], file.attrs["featureType"]) == ("CF-1.8", "timeSeries")
    assert file["station_name"].attrs["cf_role"] == "timeseries_id"
    assert file["time"].attrs["bounds"] == "time_bounds"
    assert file["maxn"].attrs["cell_methods"] == "time: maximum"
    assert file["taxon_lsid"][0] in (
        "urn:lsid:marinespecies.org:taxname:125559",
        b"urn:lsid:marinespecies.org:taxname:125559",
    )
    for name in file["maxn"].attrs["ancillary_variables"].split():
        assert name in file.variables


def test_a_series_without_any_row_is_a_file_without_any_time() -> None:
    asked = Asked(stream="reef", station="", camera="", window_s=60, columns=Series(SPEC, []).columns(), rows=[])
    with h5netcdf.File(io.BytesIO(make(asked)), "r") as opened:
        assert opened.dimensions["time"].size == 0
