"""Cameras over RTSP, against a real server that is killed, frozen, protected and changed."""

from __future__ import annotations

import itertools
import logging
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from buoy.streams.backoff import Backoff
from support.reading import nothing_left_behind, reading, stamped, until
from support.rtsp import RtspCamera, free_port, rtsp_camera


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[RtspCamera]:
    with rtsp_camera(tmp_path / "rtsp") as started:
        yield started


def test_frames_come_in_order_with_their_times(camera: RtspCamera) -> None:
    with reading(camera.url) as stream:
        frames = stream.take(20)
    stamps = [stamped(frame) for frame in frames]
    assert stamps == sorted(stamps)
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    # All on one machine: no frame is older than a moment, and none is from the future.
    assert all(-0.01 < frame.captured_s - made.clock_s < 2 for frame, made in zip(frames, stamps, strict=True))
    assert frames[0].position_s is None
    assert frames[0].title == f"camera/{frames[0].number:09d}"
    assert stream.told == ["connecting", "live", "ended"]


def test_who_looks_slowly_sees_the_newest_frame_and_the_rest_is_counted(camera: RtspCamera) -> None:
    with reading(camera.url) as stream:
        stream.take()
        for _ in range(5):
            time.sleep(0.3)
            assert time.time() - stamped(stream.take()[0]).clock_s < 0.3  # one interval would be 0.04
    assert stream.counts.drops["newer"] >= 20


def test_a_killed_camera_is_a_gap_that_ends_when_it_is_back(camera: RtspCamera) -> None:
    with reading(camera.url) as stream:
        last = stream.take(5)[-1]
        camera.kill()
        gap = stream.wait("gap")
        assert abs(gap.since_s - last.captured_s) < 2
        camera.start()
        live = stream.wait("live", 2)
        stream.take(5)
        assert live.since_s > gap.since_s
        assert stream.counts.reconnects == 1
    # However many attempts it took, the outage was told once for each reason.
    assert len(stream.states) == len(set(stream.states))


def test_a_frozen_camera_is_noticed_and_survived(camera: RtspCamera) -> None:
    with reading(camera.url) as stream:
        stream.take(5)
        camera.freeze()
        gap = stream.wait("gap")
        assert time.time() - gap.since_s < 5.5
        assert gap.reason == "nothing came for 4 s"
        camera.thaw()
        stream.wait("live", 2)
        stream.take(5)


def test_another_resolution_after_a_restart_is_survived(camera: RtspCamera) -> None:
    with reading(camera.url) as stream:
        assert getattr(stream.take()[0].load(), "shape", None) == (360, 640, 3)
        camera.width, camera.height = 800, 608
        camera.start()
        stream.wait("live", 2)
        assert getattr(stream.take(2)[1].load(), "shape", None) == (608, 800, 3)


@pytest.mark.parametrize("digest", [False, True], ids=["basic", "digest"])
def test_the_password_opens_and_a_wrong_one_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], digest: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with rtsp_camera(tmp_path, user="me", password="p@s:s /%w", digest=digest) as camera:
        right = camera.url.replace("//", "//me:p%40s%3As%20%2F%25w@")
        with reading(right) as stream:
            stream.take(3)
        wrong = camera.url.replace("//", "//me:sesame-7@")
        # Refusals are retried at the slow end of the back-off: here, at once after a tenth of a second.
        with reading(wrong, backoff=Backoff(0.05, 0.1)) as stream:
            refused = stream.wait("refused")
            time.sleep(1)
            assert stream.told == ["connecting", "refused"]
            assert "401" in refused.reason
    assert "sesame" not in caplog.text + "".join(capfd.readouterr()) + str(stream.states)


def test_a_path_that_is_not_there_is_told_apart(camera: RtspCamera) -> None:
    with reading(camera.url + "-2") as stream:
        assert "404" in stream.wait("refused").reason
        assert stream.counts.frames == 0


def test_tls_wants_a_trusted_certificate_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=camera", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with rtsp_camera(tmp_path / "rtsp", certificate=str(certificate), key=str(key)) as camera:
        with reading(camera.url) as stream:
            refused = stream.wait("refused")
            assert "certificate is not trusted" in refused.reason
        with reading(camera.url, verify_tls=False) as stream:
            stream.take(3)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with reading(camera.url) as stream:
            stream.take(3)


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with reading(f"rtsp://127.0.0.1:{port}/camera") as stream:
            gap = stream.wait("gap")
            assert time.time() - gap.since_s < 6
            assert gap.reason in ("nothing came for 4 s", "the camera is silent")


def test_a_name_that_nobody_knows_is_told() -> None:
    with reading("rtsp://camera.invalid/camera") as stream:
        assert "cannot be resolved" in stream.wait("gap").reason


def test_where_sampling_is_sparse_only_key_frames_are_decoded(tmp_path: Path) -> None:
    with rtsp_camera(tmp_path, key_every=5) as camera, reading(camera.url, every_s=0.6) as stream:
        frames = stream.take(6)
    # After the first two, which taught how often key frames come.
    assert {stamped(frame).number % 5 for frame in frames[2:]} == {0}
    assert all(0.3 < later.captured_s - earlier.captured_s < 0.9 for earlier, later in itertools.pairwise(frames))
    assert set(stream.counts.drops) <= {"sampling", "shut"}
    assert stream.told == ["connecting", "live", "ended"]


def test_the_port_is_watched_so_a_short_outage_ends_at_once(camera: RtspCamera) -> None:
    with reading(camera.url, backoff=Backoff(0.1, 3600.0)) as stream:
        stream.take()
        camera.kill()
        # By now the wait between two attempts is above a quarter of a minute, and doubles.
        stream.reader._backoff._most_s = 1000.0
        stream.wait("gap")
        time.sleep(0.5)
        camera.start()
        stream.wait("live", 2)


@pytest.mark.slow
def test_a_hundred_kills_cost_no_memory_no_threads_no_descriptors(tmp_path: Path) -> None:
    """Slow: the server is started a hundred times, and each time sends a first key frame after a moment."""
    process, marks = psutil.Process(), []
    with (
        rtsp_camera(tmp_path, key_every=4) as camera,
        reading(camera.url, backoff=Backoff(0.02, 0.1)) as stream,
    ):
        for kill in range(100):
            stream.wait("live", kill + 1)
            stream.take(2)
            if kill in (30, 99):
                marks.append((process.memory_info().rss, process.num_threads(), process.num_fds()))
            camera.kill()
            until(lambda: stream.reader.state is not None and stream.reader.state.state == "gap")
            camera.start()
        stream.wait("live", 101)
        assert stream.counts.reconnects == 100
    (memory, threads, files), last = marks
    # 15 kB a connection, until the allocator has found its shape; frames that were kept would be ten times as much.
    assert last[0] < memory * 1.08
    assert last[1] <= threads + 1
    assert last[2] <= files + 2


def test_a_dead_camera_costs_nothing() -> None:
    """Hundreds of attempts, as in an hour and more."""
    process = psutil.Process()
    with reading(f"rtsp://me:secret@127.0.0.1:{free_port()}/camera", backoff=Backoff(0.001, 0.002)) as stream:
        attempts = count_attempts(stream.reader)
        until(lambda: len(attempts) > 200)
        before = process.memory_info().rss, process.num_fds()
        until(lambda: len(attempts) > 1200)
        after = process.memory_info().rss, process.num_fds()
    assert after[0] <= before[0] * 1.02
    assert after[1] <= before[1] + 2
    assert len(stream.states) == 3
    assert stream.counts.frames == 0


def count_attempts(reader: object) -> list[float]:
    """The waits before each attempt of a reader."""
    waits: list[float] = []
    backoff = reader._backoff  # type: ignore[attr-defined]
    real = backoff.next_s

    def next_s() -> float:
        waits.append(real())
        return waits[-1]

    backoff.next_s = next_s
    return waits
