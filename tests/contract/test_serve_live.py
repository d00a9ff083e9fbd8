"""Live streams over real HTTP: made, watched, kept, ended."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.hosted import write_video
from support.live import events_of, hanging, parts_of, pushing, socket
from support.mjpeg import mjpeg_camera
from support.receiver import receiver
from support.serve import Served, serving
from support.tiny import make_model, picture_with_squares

_names = (f"s{number}" for number in itertools.count())


def jpeg(*cells: tuple[int, int]) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(picture_with_squares(*cells), cv2.COLOR_RGB2BGR))[1].tobytes()


#: Size of the picture that stands for none.
OUTAGE = (540, 960, 3)
ONE, TWO = jpeg((1, 2)), jpeg((0, 0), (2, 3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("live"), model, options=("--max-upload", "2")) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as http:
        yield http


@pytest.fixture
def stream(http: httpx2.Client) -> Iterator[str]:
    name = next(_names)
    assert make(http, name).status_code == 201
    yield name
    http.delete(f"/streams/{name}")


def make(http: httpx2.Client, name: str, **spec: Any) -> httpx2.Response:
    return http.post("/streams", json={"name": name, "source": "push:", **spec})


def error(answer: httpx2.Response) -> dict[str, str]:
    record: dict[str, str] = answer.json()["error"]
    assert set(record) == {"class", "message", "hint"}
    return record


def next_of(kind: str, events: Iterator[tuple[str, str, dict[str, Any]]]) -> dict[str, Any]:
    return next(data for _, name, data in events if name == kind)


def test_what_is_seen_comes_out_as_events_messages_and_pictures(
    served: Served, http: httpx2.Client, stream: str
) -> None:
    with pushing(served, stream, TWO), http.stream("GET", f"/streams/{stream}/mjpeg?width=64") as pictures:
        assert pictures.headers["content-type"].startswith("multipart/x-mixed-replace")
        event = next_of("frame", events_of(http, stream))
        with socket(served, f"/streams/{stream}/ws") as out:
            messages = map(json.loads, out)
            assert next(messages)["event"] == "state"
            message = next(each for each in messages if each["event"] == "frame")
        for found in (event, message):
            assert found["record"]["schema"] == "buoy.result/1"
            assert found["record"]["input"]["frame"]["stream"] == stream
            assert [each["label"] for each in found["record"]["detections"]] == ["bright", "bright"]
            counts = found["counts"]
            assert counts["received"] == counts["processed"] + sum(counts["dropped"].values()) + counts["in_flight"]
        sizes = (cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR).shape for part in parts_of(pictures))
        assert next(size for size in sizes if size != OUTAGE) == (64, 64, 3)
    view = http.get(f"/streams/{stream}").json()
    assert view["latest"]["found"] == {"bright": 2}
    assert view["model"]["maturity"] == "demo"
    assert stream in [each["name"] for each in http.get("/streams").json()["streams"]]


def test_pictures_are_drawn_only_while_somebody_watches(served: Served, http: httpx2.Client, stream: str) -> None:
    def viewers() -> float:
        return served.metric("buoy_stream_viewers", stream=stream)

    with pushing(served, stream, ONE):
        assert viewers() == 0
        with http.stream("GET", f"/streams/{stream}/mjpeg") as answer:
            pictures = parts_of(answer)
            next(pictures)
            next(pictures)
            assert viewers() == 1
            pictures.close()
        served.until(lambda: viewers() == 0)


def test_a_client_that_pushes_gets_its_answers_and_is_told_of_what_is_no_picture(served: Served, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push?answers=1") as both:
        both.send(b"no picture")
        both.send("no sense")
        both.send(json.dumps({"captured": "2026-01-31T12:00:00.000Z"}))
        both.send(ONE)
        messages = list(itertools.takewhile(lambda each: each["event"] != "frame", map(json.loads, both)))
        told = [each["error"]["message"] for each in messages if each["event"] == "error"]
        assert told == ["this is no JPEG", "this text is not understood"]
        both.send(json.dumps({"captured": "2026-01-31T12:00:01.000Z"}))
        both.send(TWO)
        found = next(each for each in map(json.loads, both) if each["event"] == "frame")
    assert found["record"]["input"]["frame"]["captured"] == "2026-01-31T12:00:01.000Z"
    assert len(found["record"]["detections"]) == 2


def test_a_picture_that_cannot_be_read_is_dropped_and_counted(served: Served, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push?answers=1") as both:
        both.send(ONE[:200])
        next(each for each in map(json.loads, both) if each["counts"]["dropped"])
        both.send(TWO)
        counts = next(each for each in map(json.loads, both) if each["event"] == "frame")["counts"]
    assert counts["dropped"] == {"undecodable": 1}
    assert counts["received"] == counts["processed"] + 1 + counts["in_flight"]


def test_a_message_over_the_upload_limit_ends_the_connection(served: Served, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push") as out:
        out.send(b"\xff\xd8\xff" + bytes((2 << 20) + 1))
        with pytest.raises(ConnectionClosed) as closed:
            out.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_the_latest_client_to_push_takes_over(served: Served, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push") as first, socket(served, f"/streams/{stream}/push?answers=1") as new:
        with pytest.raises(ConnectionClosed) as closed:
            first.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4409
        new.send(ONE)
        assert any(each["event"] == "frame" for each in map(json.loads, new))


def test_events_go_on_where_they_were_cut(served: Served, http: httpx2.Client, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push?answers=1") as both:
        events = events_of(http, stream)
        next(events)
        both.send(ONE)
        cut = next(number for number, name, _ in events if name == "frame")
        both.send(TWO)
        next(each for each in map(json.loads, both) if len(each.get("record", {}).get("detections", [])) == 2)
        again = events_of(http, stream, **{"Last-Event-ID": cut})
        frame = next_of("frame", again)
    assert len(frame["record"]["detections"]) == 2


def test_a_viewer_that_takes_nothing_holds_up_nobody(served: Served, http: httpx2.Client, stream: str) -> None:
    with (
        pushing(served, stream, ONE, TWO, pause_s=0.005),
        hanging(served, f"/streams/{stream}/mjpeg?width=4096"),
        hanging(served, f"/streams/{stream}/events"),
    ):
        events = events_of(http, stream)
        numbers = [next_of("frame", events)["record"]["input"]["frame"]["number"] for _ in range(200)]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("spec", "status", "says"),
    [
        ({"name": "Not A Name"}, 400, "name"),
        ({"name": "x", "model": "nowhere"}, 400, "nowhere"),
        ({"name": "x", "colour": "red"}, 400, "colour"),
        ({"name": "x", "lines": [{"name": "a", "start": [0, 0], "end": [1, 1]}]}, 400, "track"),
    ],
)
def test_a_wrong_stream_is_refused_with_what_is_wrong(
    http: httpx2.Client, spec: dict[str, Any], status: int, says: str
) -> None:
    answer = make(http, **spec)
    assert answer.status_code == status
    assert says in error(answer)["message"]


def test_what_is_no_json_is_refused(http: httpx2.Client) -> None:
    assert http.post("/streams", content=b"{").status_code == 400
    assert http.post("/streams", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert http.post("/streams", content=b" " * (2 << 20)).status_code == 413
    for path in ("", "/mjpeg", "/events", "/gaps"):
        assert error(http.get(f"/streams/nowhere{path}"))["class"] == "Unknown"
    for width in ("1", "x", "5000"):
        assert http.get(f"/streams/nowhere/mjpeg?width={width}").status_code in (400, 404)


def test_a_name_can_be_used_once_until_it_is_free_again(served: Served, http: httpx2.Client, stream: str) -> None:
    assert make(http, stream).status_code == 409
    with socket(served, f"/streams/{stream}/ws") as out:
        assert http.delete(f"/streams/{stream}").status_code == 204
        assert [json.loads(each)["state"] for each in out if '"state"' in each][-1] == "ended"
    assert http.delete(f"/streams/{stream}").status_code == 404
    assert make(http, stream).status_code == 201


def test_a_source_of_its_own_takes_no_pushes(served: Served, http: httpx2.Client, tmp_path: Path) -> None:
    name = next(_names)
    make(http, name, source=str(tmp_path))
    with pytest.raises(InvalidStatus) as refused, socket(served, f"/streams/{name}/push"):
        pass
    assert refused.value.response.status_code == 409
    http.delete(f"/streams/{name}")


def test_passwords_are_in_no_answer(http: httpx2.Client) -> None:
    name = next(_names)
    source = "rtsp://guest:hunter2@127.0.0.1:1/cam?token=hunter2&channel=1"
    answer = make(http, name, source=source, sinks=[{"kind": "webhook", "to": "https://u:hunter2@h.example/hunter2"}])
    assert answer.status_code == 201
    assert answer.json()["spec"]["source"] == "rtsp://guest:***@127.0.0.1:1/cam?token=***&channel=1"
    assert "--data" in answer.json()["note"]
    said = [answer.text, http.get("/streams").text, http.get(f"/streams/{name}").text, http.get("/metrics").text]
    http.delete(f"/streams/{name}")
    assert "hunter2" not in "".join(said)


def test_streams_that_were_made_outlive_the_service(model: Path, tmp_path: Path) -> None:
    configured = tmp_path / "streams.yaml"
    configured.write_text("- name: fixed\n  source: 'push:'\n")
    options = ("--data", str(tmp_path / "data"), "--streams", str(configured))
    with serving(tmp_path, model, options=options) as served, served.client() as http:
        answer = make(http, "made", source="rtsp://guest:hunter2@127.0.0.1:1/cam")
        assert answer.json()["kept"]
        kept = tmp_path / "data" / "streams.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert "hunter2" in kept.read_text()
        assert error(http.delete("/streams/fixed"))["class"] == "Conflict"
        assert served.stop() == 0
    with serving(tmp_path, model, options=options) as served, served.client() as http:
        views = {each["name"]: each for each in http.get("/streams").json()["streams"]}
        assert {name: view["origin"] for name, view in views.items()} == {"fixed": "file", "made": "api"}
        with pushing(served, "fixed", ONE):
            next_of("frame", events_of(http, "fixed"))
        found = http.get("/streams/fixed/gaps").json()["gaps"]
        assert "the service was not running" in [gap["reason"] for gap in found]
        assert http.delete("/streams/made").status_code == 204
    assert "hunter2" not in kept.read_text()


def test_a_kept_stream_whose_model_is_not_served_stays_kept(model: Path, tmp_path: Path) -> None:
    other, options = make_model(tmp_path / "more", "other"), ("--data", str(tmp_path / "data"))
    with serving(tmp_path, model, other, options=options) as served, served.client() as http:
        assert make(http, "here", model="tiny").status_code == 201
        assert make(http, "there", model="other").status_code == 201
    with serving(tmp_path, model, options=options) as served, served.client() as http:
        assert [each["name"] for each in http.get("/streams").json()["streams"]] == ["here"]
        assert [line["stream"] for line in served.log if line["event"] == "a kept stream cannot begin"] == ["there"]
        assert http.delete("/streams/here").status_code == 204
    kept = json.loads((tmp_path / "data" / "streams.json").read_text())["streams"]
    assert [each["spec"]["name"] for each in kept] == ["there"]


def test_a_video_is_seen_to_its_end_and_does_not_begin_again(model: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 20)
    options = ("--data", str(tmp_path / "data"))
    with serving(tmp_path, model, options=options) as served, served.client() as http:
        make(http, "video", source=str(video))
        served.until(lambda: http.get("/streams/video").json()["state"] == "ended")
        counts = http.get("/streams/video").json()["counts"]
        assert (counts["received"], counts["processed"], counts["in_flight"]) == (20, 20, 0)
    with serving(tmp_path, model, options=options) as served, served.client() as http:
        view = http.get("/streams/video").json()
        assert (view["state"], view["counts"]["received"]) == ("ended", 0)


def test_an_alert_is_sent_and_shown(served: Served, http: httpx2.Client) -> None:
    name = next(_names)
    with receiver() as web:
        make(http, name, sinks=[{"kind": "webhook", "to": web.url, "score": 0.5, "k": 2, "n": 3}])
        with pushing(served, name, ONE):
            alert = next_of("alert", events_of(http, name))
            served.until(lambda: bool(web.alerts))
        assert alert["raised"] == 1
        assert web.alerts[0]["picture"]["media_type"] == "image/jpeg"
        assert http.get(f"/streams/{name}").json()["sinks"][0]["state"] == "ok"
        assert http.delete(f"/streams/{name}").status_code == 204


def test_a_crash_is_a_gap_after_which_the_stream_goes_on(served: Served, http: httpx2.Client, stream: str) -> None:
    with pushing(served, stream, ONE):
        events = events_of(http, stream)
        before = next_of("frame", events)["counts"]
        os.kill(served.children[0], signal.SIGKILL)
        assert next(data for _, name, data in events if name == "state" and data["state"] == "gap")
        after = next_of("frame", events)["counts"]
    assert after["received"] > before["received"]
    assert after["received"] == after["processed"] + sum(after["dropped"].values()) + after["in_flight"]
    gap = http.get(f"/streams/{stream}/gaps").json()["gaps"][-1]
    assert "SIGKILL" in gap["reason"]
    assert gap["begin"] < gap["end"]


def numbers(served: Served, stream: str) -> dict[str, float]:
    """What the metrics say; drops of all reasons together."""
    counts = ("frames_received_total", "frames_processed_total", "frames_dropped_total", "reconnects_total")
    found = {name: served.metric(f"buoy_stream_{name}", stream=stream) for name in (*counts, "frames_in_flight")}
    return {name.removeprefix("frames_").removesuffix("_total"): value for name, value in found.items()}


def test_the_numbers_of_streams_are_among_the_metrics(served: Served, http: httpx2.Client, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push?answers=1") as both:
        both.send(ONE)
        next(each for each in map(json.loads, both) if each["event"] == "frame")
    with socket(served, f"/streams/{stream}/push?answers=1") as both:
        both.send(ONE[:200])
        next(each for each in map(json.loads, both) if each["counts"]["dropped"])
    assert numbers(served, stream) == {"received": 2, "processed": 1, "dropped": 1, "in_flight": 0, "reconnects": 0}
    assert served.metric("buoy_stream_frames_dropped_total", stream=stream, reason="undecodable") == 1
    http.delete(f"/streams/{stream}")
    assert f'stream="{stream}"' not in http.get("/metrics").text


def test_metrics_tell_what_sampling_left_out(served: Served, http: httpx2.Client) -> None:
    name = next(_names)
    make(http, name, every_s=3600)
    with socket(served, f"/streams/{name}/push?answers=1") as both:
        both.send(ONE)
        next(each for each in map(json.loads, both) if each["event"] == "frame")
        for _ in range(3):
            both.send(TWO)
        served.until(lambda: numbers(served, name)["dropped"] == 3)
    assert numbers(served, name) == {"received": 4, "processed": 1, "dropped": 3, "in_flight": 0, "reconnects": 0}
    assert served.metric("buoy_stream_frames_dropped_total", stream=name, reason="sampling") == 3
    http.delete(f"/streams/{name}")


def test_metrics_count_how_often_a_camera_was_lost_and_came_back(served: Served, http: httpx2.Client) -> None:
    def state() -> str:
        return str(http.get(f"/streams/{name}").json()["state"])

    name = next(_names)
    with mjpeg_camera(frames=3) as camera:
        make(http, name, source=camera.url)
        served.until(lambda: state() == "gap")
        assert served.metric("buoy_stream_live", stream=name) == 0
        camera.frames = 0  # from now on it stays
        served.until(lambda: state() == "live")
        assert numbers(served, name)["reconnects"] == camera.served - 1 >= 1
        assert served.metric("buoy_stream_live", stream=name) == 1
        http.delete(f"/streams/{name}")


def test_what_was_counted_comes_as_json_csv_and_netcdf(served: Served, http: httpx2.Client, stream: str) -> None:
    with socket(served, f"/streams/{stream}/push?answers=1") as both:
        frames = (each for each in map(json.loads, both) if each["event"] == "frame")
        for second, picture in enumerate((ONE, TWO, ONE)):
            both.send(json.dumps({"captured": f"2026-01-31T12:00:0{second}.000Z"}))
            both.send(picture)
            next(frames)
    answer = http.get(f"/streams/{stream}/series").json()
    rows = {row["taxon"]: row for row in answer["rows"] if row["time_utc"] == "2026-01-31T12:00:00Z"}
    assert (rows["bright"]["maxn"], rows["bright"]["n"], rows["bright"]["frames"]) == (2, 4, 3)
    assert (rows["red"]["maxn"], rows["red"]["presence"]) == (0, 0)
    table = http.get(f"/streams/{stream}/series", params={"window": "60", "format": "csv"})
    assert table.headers["content-disposition"] == f'attachment; filename="{stream}-60min.csv"'
    first = next(csv.DictReader(io.StringIO(table.text)))
    assert (first["taxon"], first["maxn"], first["window_s"]) == ("bright", "2", "3600")
    archive = http.get(f"/streams/{stream}/series", params={"format": "netcdf"})
    assert (archive.status_code, archive.content[:4]) == (200, b"\x89HDF")
    for query in ({"window": "7"}, {"format": "xml"}, {"since": "yesterday"}, {"colour": "red"}):
        assert http.get(f"/streams/{stream}/series", params=query).status_code == 400


def test_another_sites_page_cannot_listen_or_change_anything(served: Served, http: httpx2.Client, stream: str) -> None:
    for path in ("ws", "push"):
        with (
            pytest.raises(InvalidStatus) as refused,
            socket(served, f"/streams/{stream}/{path}", origin="https://evil.example"),
        ):
            pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["error"]["class"] == "Foreign"
    foreign = {"Origin": "https://evil.example"}
    assert http.delete(f"/streams/{stream}", headers=foreign).status_code == 403
    assert http.post("/streams", json={"name": "x", "source": "push:"}, headers=foreign).status_code == 403
    with socket(served, f"/streams/{stream}/ws", origin=served.url):
        pass


def test_a_browser_gets_in_with_the_token_once_and_then_with_its_cookie(model: Path, tmp_path: Path) -> None:
    base = "/system/services/fish-live/exposed"
    env = {"BUOY_TOKEN": "correct-horse", "OSCAR_SERVICE_NAME": "fish-live", "OSCAR_SERVICE_BASE_PATH": base}
    html = {"Accept": "text/html"}
    with serving(tmp_path, model, **env) as served:
        root = served.url.removesuffix(base)
        for prefix in (base, ""):  # both values of rewrite_target
            with httpx2.Client(base_url=root, timeout=60) as http:
                asked = http.get(f"{prefix}/", headers=html)
                assert 'action="session"' in asked.text
                assert f'<base href="{base}/">' in asked.text
                assert http.get(f"{prefix}/streams").status_code == 401
                assert (
                    "www-authenticate" not in http.get(f"{prefix}/streams", headers={"Sec-Fetch-Dest": "empty"}).headers
                )
                assert http.get(f"{prefix}/?token=wrong", headers=html).status_code == 401
                let_in = http.get(f"{prefix}/?token=correct-horse", headers=html)
                assert (let_in.status_code, let_in.headers["location"]) == (303, f"{base}/")
                cookie = let_in.headers["set-cookie"]
                assert cookie.startswith("oscar_service_fish_live_auth=")
                assert all(each in cookie for each in ("HttpOnly", "SameSite=Strict", f"Path={base}"))
                form = http.post(f"{prefix}/session", data={"token": "correct-horse"})
                assert (form.status_code, form.headers["set-cookie"]) == (303, cookie)
                kept = {"Cookie": cookie.partition(";")[0]}
                assert http.get(f"{prefix}/streams", headers=kept).status_code == 200
                assert "token" not in http.get(f"{prefix}/", headers={**html, **kept}).text.lower()
                foreign = {**kept, "Origin": "https://evil.example"}
                assert (
                    http.post(f"{prefix}/streams", json={"name": "x", "source": "push:"}, headers=foreign).status_code
                    == 403
                )
                name = next(_names)
                assert (
                    http.post(f"{prefix}/streams", json={"name": name, "source": "push:"}, headers=kept).status_code
                    == 201
                )
            with socket(served, f"/streams/{name}/ws", additional_headers=kept) as out:
                assert json.loads(out.recv(timeout=30))["event"] == "state"
            with pytest.raises(InvalidStatus) as refused, socket(served, f"/streams/{name}/ws"):
                pass
            assert refused.value.response.status_code == 401


def test_the_page_and_its_files_allow_nothing_from_elsewhere(http: httpx2.Client) -> None:
    page = http.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("base.css", "live.css", "live.js", "buoy.svg"):
        found = http.get(f"/ui/{name}")
        assert found.status_code == 200, name
        assert http.get(f"/ui/{name}", headers={"If-None-Match": found.headers["etag"]}).status_code == 304
    for name in ("..%2froutes.py", "index.html", "nothing.js"):
        assert http.get(f"/ui/{name}").status_code == 404
    assert http.get("/").headers["content-type"].startswith("text/plain")


def test_asked_to_end_it_lets_its_viewers_go_and_ends(model: Path, tmp_path: Path) -> None:
    with serving(tmp_path, model) as served, served.client() as http:
        make(http, "cam")
        with (
            pushing(served, "cam", ONE, TWO, pause_s=0.005),
            http.stream("GET", "/streams/cam/mjpeg") as answer,
            hanging(served, "/streams/cam/mjpeg"),
            hanging(served, "/streams/cam/events"),
            socket(served, "/streams/cam/ws") as out,
        ):
            pictures = parts_of(answer)
            for _ in range(50):
                next(pictures)
            assert served.stop() == 0
            with pytest.raises(ConnectionClosed) as closed:
                list(out)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert all(isinstance(each, bytes) for each in pictures)
