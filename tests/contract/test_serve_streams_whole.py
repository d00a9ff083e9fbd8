"""Live streams through a whole running service: whatever their sources do, each frame counts, and counts once."""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.followed import Followed, balances, following
from support.live import Pushing, pushing
from support.mjpeg import MjpegCamera, mjpeg_camera, stamped_jpeg
from support.rtsp import free_port, rtsp_camera
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares, png, set_version

Picture = NDArray[np.uint8]
KINDS = ["camera", "client"]


def scene(width: int, height: int) -> Picture:
    """(height, width, 3) uint8 RGB: what is bright stands at the same place in each size."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 5 : height * 4 // 5, width // 4 : width * 3 // 4] = 255
    return pixels


SMALL, LARGE = scene(320, 240), scene(640, 480)


class Source(NamedTuple):
    """Something that sends pictures: a network camera, or a client of ours."""

    address: str
    sender: MjpegCamera | Pushing


@contextmanager
def sending(served: Served, kind: str, stream: str, pictures: Sequence[Picture], fps: float) -> Iterator[Source]:
    """A source of that kind for the time of the block."""
    if kind == "camera":
        with mjpeg_camera(pictures=pictures, fps=fps) as camera:
            yield Source(camera.url, camera)
    else:
        files = [stamped_jpeg(each, at) for at, each in enumerate(pictures)]
        with pushing(served, stream, *files, pause_s=1 / fps, dated=True) as client:
            yield Source("push:", client)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("whole")
    with serving(folder, make_model(folder)) as served:
        yield served


@pytest.mark.parametrize("kind", KINDS)
def test_another_size_of_the_pictures_while_connected_loses_none_of_them(served: Served, kind: str) -> None:
    children, name = served.children, f"sizes-{kind}"
    with (
        sending(served, kind, name, [SMALL, LARGE], fps=40) as source,
        following(served, name, source=source.address, track=True) as stream,
    ):
        stream.reach(40)
        assert stream.states == ["connecting", "live"]
        source.sender.stop()
        served.until(lambda: stream.view["counts"]["received"] == len(source.sender.sent))
        counts = stream.settled()
        assert balances(counts)
        assert set(counts["dropped"]) <= {"newer", "early"}
        assert counted_once(stream)
        assert counts["reconnects"] == 0
    inputs = [each["record"]["input"] for each in stream.frames]
    assert {(each["width"], each["height"]) for each in inputs} == {(320, 240), (640, 480)}
    numbers = [each["frame"]["number"] for each in inputs]
    assert numbers == sorted(set(numbers))
    found = [each for frame in stream.frames[2:] for each in frame["record"]["detections"]]
    assert {each["track_id"] for each in found} == {1, 2, 3, 4}
    assert served.children == children
    assert served.metric("buoy_worker_restarts_total") == 0


def counted_once(stream: Followed) -> bool:
    """Whether the counts went on with each frame, from the first to the last."""
    told = [each["counts"] for each in stream.messages if "counts" in each]
    received = [each["received"] for each in told]
    processed = [each["counts"]["processed"] for each in stream.frames]
    return processed == [*range(1, len(processed) + 1)] and received == sorted(received) and all(map(balances, told))


def ages_s(stream: Followed, source: Source) -> list[float]:
    """Of each result that was heard, how long before its picture was sent."""
    frames = [(each["heard_s"], each["record"]["input"]["frame"]) for each in stream.frames]
    if isinstance(source.sender, MjpegCamera):
        return [heard_s - source.sender.sent[frame["number"]] for heard_s, frame in frames]
    return [heard_s - datetime.fromisoformat(frame["captured"]).timestamp() for heard_s, frame in frames]


def total_s(record: dict[str, Any]) -> float:
    return float(record["run"]["total_ms"]) / 1000


@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_grow_older_when_frames_come_three_times_too_fast(tmp_path: Path, kind: str) -> None:
    model = make_model(tmp_path, slow=40, run={"callers": 1, "threads": 1})
    with serving(tmp_path, model) as served:
        with served.client() as http:
            asked = png(picture_with_squares((1, 1)))
            answers = [http.post("/predict", content=asked, headers={"Content-Type": "image/png"}) for _ in range(9)]
        fps = 3 / min(total_s(each.json()) for each in answers)
        with (
            sending(served, kind, "fast", [scene(128, 96)], fps) as source,
            following(served, "fast", source=source.address) as stream,
        ):
            stream.reach(45)
            source.sender.stop()
            served.until(lambda: stream.view["counts"]["received"] == len(source.sender.sent))
            counts = stream.settled()
        ages, third = ages_s(stream, source), len(stream.frames) // 3
        first_s, last_s = statistics.median(ages[:third]), statistics.median(ages[-third:])
        inference_s = statistics.median(total_s(each["record"]) for each in stream.frames[-third:])
        assert last_s <= first_s + 1 / fps + inference_s
        assert balances(counts)
        assert counted_once(stream)
        assert set(counts["dropped"]) <= {"newer", "early"}
        assert counts["dropped"]["newer"] > counts["processed"] / 4  # else it was not too fast


def ask_until(over: threading.Event, served: Served, seen: Counter[str]) -> None:
    """Ask over gRPC again and again; counts which version answered, and what failed."""
    picture = png(picture_with_squares((1, 1)))
    asked = service_pb2.ModelInferRequest(model_name="tiny", raw_input_contents=[picture])
    asked.inputs.add(name="image", datatype="UINT8", shape=[len(picture)])
    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while not over.is_set():
            try:
                seen[stub.ModelInfer(asked, timeout=60).model_version] += 1
            except grpc.RpcError as error:
                seen[str(error)] += 1


@contextmanager
def asking(served: Served, callers: int = 2) -> Iterator[Counter[str]]:
    """Callers over gRPC for the time of the block, and the answers that they got."""
    over, seen = threading.Event(), Counter[str]()
    threads = [threading.Thread(target=ask_until, args=(over, served, seen)) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def versions(stream: Followed) -> list[str]:
    """Of the model that looked, in the order of frames, each once for as long as it stays."""
    return [version for version, _ in itertools.groupby(each["record"]["model"]["version"] for each in stream.frames)]


def test_a_new_version_takes_over_while_streams_are_watched_and_grpc_asks(tmp_path: Path) -> None:
    model, options = make_model(tmp_path, slow=10), ("--grpc-port", "0", "--max-wait", "30")
    with (
        serving(tmp_path, model, options=options) as served,
        served.client() as http,
        asking(served) as seen,
        sending(served, "camera", "reef", [SMALL], fps=25) as camera,
        sending(served, "client", "quay", [SMALL], fps=25) as client,
        following(served, "reef", source=camera.address) as reef,
        following(served, "quay", source=client.address) as quay,
    ):
        for version in ("2.0", "3.0"):
            reef.reach(5)
            quay.reach(5)
            set_version(model, version)
            if version == "2.0":
                with served.held():  # what is looked at meanwhile comes when another has taken the place
                    assert http.post("/v2/repository/models/tiny/load").json()["version"] == version
            else:
                served.process.send_signal(signal.SIGHUP)
            served.until(lambda version=version: versions(reef)[-1] == versions(quay)[-1] == version)
            served.until(lambda version=version: seen[version] > 5)
        reef.reach(5)
        quay.reach(5)
        for stream, source in ((reef, camera), (quay, client)):
            source.sender.stop()
            counts = stream.settled()
            assert versions(stream) == ["1.0", "2.0", "3.0"]
            assert counted_once(stream)
            assert balances(counts)
            assert counts["received"] <= len(source.sender.sent)
            assert set(counts["dropped"]) <= {"newer", "early", "worker lost"}
            gaps = [gap for gap in stream.gaps if gap["reason"].endswith("replaced by a new version")]
            assert len(gaps) == 2
            assert all(gap["begin"] <= gap["end"] for gap in gaps)
    assert set(seen) == {"1.0", "2.0", "3.0"}


def moment_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def rows_of(stream: Followed, label: str = "bright") -> list[dict[str, Any]]:
    """Of its time series, those of one label."""
    return [row for row in stream.rows if row["taxon"] == label]


def lines_below(folder: Path) -> list[dict[str, Any]]:
    """What a sink has written there."""
    files = sorted(folder.rglob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def test_an_outage_of_a_camera_is_a_gap_in_every_output_and_no_zero(served: Served, tmp_path: Path) -> None:
    sinks = [{"kind": "bucket", "to": str(tmp_path / "out")}]
    with (
        rtsp_camera(tmp_path / "camera", [SMALL], width=320, height=240, key_every=5) as camera,
        following(served, "reef", source=camera.url, sinks=sinks) as stream,
    ):
        stream.reach(10)
        camera.kill()
        stream.is_in("gap")
        (open_gap,) = stream.gaps
        restarted_s = time.time()
        camera.start()
        stream.is_in("live")
        stream.reach(10)
        camera.kill()
        stream.is_in("gap")
        counts, rows = stream.settled(), rows_of(stream)
        (gap, last) = stream.gaps
        assert stream.states == ["connecting", "live", "gap", "live", "gap"]
    begin_s, end_s = moment_s(gap["begin"]), moment_s(gap["end"])
    assert open_gap == {**gap, "end": None}
    assert begin_s < restarted_s < end_s
    assert gap["reason"]
    assert counted_once(stream)
    assert counts["reconnects"] == 1
    captured_s = [moment_s(each["record"]["input"]["frame"]["captured"]) for each in stream.frames]
    assert not [each for each in captured_s if begin_s < each < end_s]
    # the series: the outage is time without effort, and no frames without animals
    assert sum(row["frames"] for row in rows) == counts["processed"]
    assert all(row["mean_count"] == 4 for row in rows if row["frames"])
    watched_s = [
        later - earlier for earlier, later in itertools.pairwise(captured_s) if later < end_s or earlier >= end_s
    ]
    assert sum(row["seconds_observed"] for row in rows) == pytest.approx(sum(watched_s), abs=0.01)
    assert sum(row["gap_seconds"] for row in rows) >= round(end_s - begin_s, 3)
    assert any("gap" in row["flags"] for row in rows)
    # the sink: the same gap where it was, and nothing in it
    lines = lines_below(tmp_path / "out")
    said = [{key: line[key] for key in gap} for line in lines if line["schema"] == "buoy.gap/1"]
    assert last["end"] is None
    assert said == [gap, {**last, "end": said[-1]["end"]}], "the other one lasted until the stream was removed"
    assert said[-1]["end"] > last["begin"]
    told = [line["begin"] if "begin" in line else line["input"]["frame"]["captured"] for line in lines]
    assert told == sorted(told)
    assert len(told) == counts["processed"] + 2


def test_a_camera_that_never_gave_a_picture_has_missing_values_and_no_zeros(served: Served) -> None:
    with following(served, "dark", source=f"rtsp://127.0.0.1:{free_port()}/camera") as stream:
        stream.is_in("gap")
        served.until(lambda: bool(rows_of(stream)))
        rows, (gap,) = rows_of(stream), stream.gaps
    assert all(row["flags"] == "gap" and row["frames"] == 0 and row["gap_seconds"] > 0 for row in rows)
    assert {row[key] for row in rows for key in ("n", "maxn", "mean_count", "presence")} == {None}
    assert (gap["end"], bool(gap["reason"])) == (None, True)
