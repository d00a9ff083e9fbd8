"""The page's routes: who may use them, what they give, what they tell live."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from buoy.fdl import SCRIPT
from support.gateway import Gateway, running, until
from support.tiny import make_model, picture_with_squares, png

BRIGHT = png(picture_with_squares((0, 1), (2, 2)))
RED = png(picture_with_squares((1, 1), red=True))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    model = make_model(tmp_path_factory.mktemp("functions"))
    with running(tmp_path_factory.mktemp("up") / "data") as gateway:
        for name in ("tiny", "other", "paged"):
            variables = {"BUOY_MODEL": str(model), "BUOY_INPUT": f"{name}/input"}
            gateway.create(name, SCRIPT, environment={"Variables": variables}, memory="1Gi", cpu="1")
        yield gateway


@pytest.fixture
def browser(gateway: Gateway) -> Iterator[httpx2.Client]:
    """A client with the page's cookie and no password, as a browser on this machine has it."""
    with httpx2.Client(base_url=gateway.url, headers={"Origin": gateway.url}, timeout=30) as http:
        answer = http.get("/")
        assert answer.status_code == 200
        yield http


def test_the_page_signs_in_by_itself_on_loopback_names_only(gateway: Gateway) -> None:
    answer = httpx2.get(gateway.url)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    foreign = httpx2.get(gateway.url, headers={"Host": "evil.example"})
    assert "set-cookie" not in foreign.headers
    assert "Password" in foreign.text


def test_elsewhere_one_signs_in_with_the_credentials(gateway: Gateway) -> None:
    known = gateway.credentials
    origin = {"Host": "buoy.example", "Origin": "http://buoy.example"}
    login = f"{gateway.url}/page/login"
    good = {"username": known["username"], "password": known["password"]}
    assert httpx2.post(login, data={**good, "password": "no"}, headers=origin).status_code == 401
    assert httpx2.post(login, data=good, headers={**origin, "Origin": "http://evil.example"}).status_code == 403
    answer = httpx2.post(login, data=good, headers=origin)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert httpx2.get(f"{gateway.url}/page/jobs", headers={"Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("cookie", ["", "buoy_session=", "buoy_session=99999999999.abc", "buoy_session=ü"])
def test_a_made_up_cookie_is_nobody(gateway: Gateway, cookie: str) -> None:
    headers = [(b"Cookie", cookie.encode())]
    for path in ("jobs", "services", "results", "events", "objects/tiny/input/x", "export?service=tiny"):
        assert httpx2.get(f"{gateway.url}/page/{path}", headers=headers).status_code == 401


def test_what_changes_something_must_come_from_the_page(gateway: Gateway, browser: httpx2.Client) -> None:
    form = {"file": ("x.png", BRIGHT)}
    for origin in ("http://evil.example", "null", ""):
        headers = {"Origin": origin}
        assert browser.post("/page/upload?service=tiny", files=form, headers=headers).status_code == 403
        assert browser.post("/page/jobs/x/retry", headers=headers).status_code == 403


def test_every_answer_has_the_security_headers(browser: httpx2.Client) -> None:
    for path in ("/", "/page/jobs", "/health", "/nowhere"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_uploads_become_results(gateway: Gateway, browser: httpx2.Client) -> None:
    form = [("file", ("a b.png", BRIGHT)), ("other", (None, "no file")), ("file", ("../../c.png", RED))]
    answer = browser.post("/page/upload?service=tiny", files=form).json()
    assert answer["refused"] == []
    assert [(one["name"], one["key"]) for one in answer["uploaded"]] == [
        ("a b.png", "input/a b.png"),
        ("c.png", "input/c.png"),
    ]
    until(lambda: len(named(browser, "tiny", {"a b.png", "c.png"})) == 2)
    first = named(browser, "tiny", {"a b.png"})["a b.png"]
    assert [found["label"] for found in first["result"]["detections"]] == ["bright", "bright"]
    assert browser.get(first["picture"]).content == BRIGHT
    assert browser.get(first["output"]).json() == first["result"]


def named(browser: httpx2.Client, service: str, names: set[str], **query: Any) -> dict[str, dict[str, Any]]:
    answer = browser.get("/page/results", params={"service": service, "limit": 500, **query})
    return {one["name"]: one for one in answer.json()["results"] if one["name"] in names}


def test_a_file_over_the_limit_is_refused_by_name_and_the_others_are_taken(
    gateway: Gateway, browser: httpx2.Client
) -> None:
    form = [("f", ("huge.png", bytes((64 << 20) + 1))), ("f", ("fits.png", BRIGHT)), ("f", (".hidden", b"x"))]
    answer = browser.post("/page/upload?service=tiny", files=form).json()
    assert [one["name"] for one in answer["uploaded"]] == ["fits.png"]
    huge, hidden = answer["refused"]
    assert huge["name"] == "huge.png"
    assert "larger than 64 MiB" in huge["error"]["message"]
    assert hidden["name"] == ".hidden"


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_form_that_is_none_is_a_400(browser: httpx2.Client, kind: str) -> None:
    answer = browser.post("/page/upload?service=tiny", content=b"--y\r\nnothing", headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"class", "message", "hint"}


def test_an_upload_that_is_cut_off_leaves_nothing(gateway: Gateway, browser: httpx2.Client) -> None:
    def half() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="f"; filename="cut.png"\r\n\r\n' + BRIGHT[:40]
        raise ConnectionAbortedError

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(ConnectionAbortedError, httpx2.HTTPError):
        browser.post("/page/upload?service=tiny", content=half(), headers=headers)
    whole = browser.post("/page/upload?service=tiny", files={"f": ("whole.png", BRIGHT)})
    assert whole.status_code == 200
    assert not (gateway.data / "buckets/tiny/input/cut.png").exists()


def test_results_are_filtered_by_label_and_score_and_come_in_pages(gateway: Gateway, browser: httpx2.Client) -> None:
    for number in range(4):
        gateway.drop("paged", f"input/{number}.png", RED if number == 2 else BRIGHT)
    gateway.drop("paged", "input/bad.png", b"none")
    gateway.finished(5, "paged")
    everything = {"0.png", "1.png", "2.png", "3.png", "bad.png"}
    assert set(named(browser, "paged", everything)) == everything
    assert set(named(browser, "paged", everything, label="red")) == {"2.png"}
    assert set(named(browser, "paged", everything, min_score=0.9)) == everything - {"bad.png"}
    bad = named(browser, "paged", everything)["bad.png"]
    assert bad["result"]["error"]["class"] == "InputError"
    seen, last = [], None
    while True:
        query = {"service": "paged", "limit": 2} | ({"before": last} if last else {})
        page = browser.get("/page/results", params=query).json()
        seen += [one["name"] for one in page["results"]]
        last = page["next"]
        if last is None:
            break
    assert sorted(seen) == sorted(everything)


@pytest.mark.parametrize("form", ["json", "csv", "coco"])
def test_results_can_be_downloaded(gateway: Gateway, browser: httpx2.Client, form: str) -> None:
    gateway.drop("tiny", f"input/down-{form}.png", BRIGHT)
    until(lambda: named(browser, "tiny", {f"down-{form}.png"}))
    answer = browser.get("/page/export", params={"service": "tiny", "format": form})
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith('attachment; filename="tiny.')
    assert f"down-{form}.png" in answer.text
    assert browser.get("/page/export", params={"service": "tiny", "format": "xml"}).status_code == 400
    assert browser.get("/page/export", params={"service": "none"}).status_code == 404


def test_other_programs_json_and_deleted_results_do_not_hinder(gateway: Gateway, browser: httpx2.Client) -> None:
    gateway.create(
        "mixed", 'for n in 1 2; do echo "{}" > "$TMP_OUTPUT_DIR/$n.json"; done; echo "[" > "$TMP_OUTPUT_DIR/3.json"\n'
    )
    gateway.drop("mixed", "input/x", b"1")
    gateway.finished(1, "mixed")
    (gateway.output("mixed") / "1.json").unlink()
    shown = browser.get("/page/results", params={"service": "mixed"}).json()["results"]
    assert {one["output_key"]: one["result"] for one in shown} == {
        "output/1.json": None,
        "output/2.json": {},
        "output/3.json": None,
    }
    assert browser.get("/page/results", params={"service": "mixed", "label": "x"}).json()["results"] == []
    assert browser.get("/page/export", params={"service": "mixed", "format": "json"}).text == ""


def test_objects_come_in_ranges_and_do_nothing_when_opened(gateway: Gateway, browser: httpx2.Client) -> None:
    content = b"<script>alert(1)</script>" * 10
    gateway.drop("tiny", "elsewhere/page.html", content)
    gateway.drop("tiny", "elsewhere/p.svg", content)
    for name in ("page.html", "p.svg"):
        answer = browser.get(f"/page/objects/tiny/elsewhere/{name}")
        assert answer.content == content
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    part = browser.get("/page/objects/tiny/elsewhere/page.html", headers={"Range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, content[3:10])
    assert part.headers["content-range"] == f"bytes 3-9/{len(content)}"
    beyond = browser.get("/page/objects/tiny/elsewhere/page.html", headers={"Range": "bytes=999-"})
    assert beyond.status_code == 416
    for key in ("../state.db", "..%2f..%2fcredentials.yaml", "%2e%2e/credentials.yaml", "none"):
        assert browser.get(f"/page/objects/tiny/{key}").status_code == 404


def test_services_show_what_their_model_says(browser: httpx2.Client) -> None:
    (shown,) = (one for one in browser.get("/page/services").json() if one["name"] == "tiny")
    assert (shown["task"], shown["maturity"], shown["labels"]) == ("detect", "demo", ["bright", "red"])
    assert shown["warm"] is True
    assert shown["input"] == ["tiny/input"]
    assert "BUOY_MODEL" in shown["fdl"]
    assert "token" not in shown["fdl"]


class Listener:
    """Reads live events in a thread of its own."""

    def __init__(self, http: httpx2.Client, **headers: str) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self._opened = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._read, args=(http, headers))
        self._thread.start()
        assert self._opened.wait(10)

    def _read(self, http: httpx2.Client, headers: dict[str, str]) -> None:
        with http.stream("GET", "/page/events", headers=headers) as answer:
            number = name = ""
            for line in answer.iter_lines():
                self._opened.set()
                field, _, value = line.partition(": ")
                if field == "id":
                    number = value
                elif field == "event":
                    name = value
                elif field == "data":
                    self.events.append((number, name, json.loads(value)))
                    number = name = ""
                if self._stop:
                    return

    def keys(self, event: str) -> list[str]:
        return [data["key"] for _, name, data in self.events if name == event]

    def close(self, gateway: Gateway) -> None:
        self._stop = True
        gateway.drop("other", f"input/end-{uuid.uuid4().hex}.png", BRIGHT)
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_live_events_tell_states_and_results_without_a_gap(gateway: Gateway, browser: httpx2.Client) -> None:
    key = f"input/live-{uuid.uuid4().hex}.png"
    first = Listener(browser)
    gateway.drop("tiny", key, BRIGHT)
    until(lambda: key in first.keys("result"), 20)
    states = [data["state"] for _, name, data in first.events if name == "job" and data["key"] == key]
    assert states[-1] == "Succeeded"
    (result,) = (data for _, name, data in first.events if name == "result" and data["key"] == key)
    assert len(result["result"]["detections"]) == 2
    last = [number for number, _, _ in first.events if number][-1]
    first.close(gateway)
    missed = [f"input/missed-{number}-{uuid.uuid4().hex}.png" for number in range(5)]
    for name in missed:
        gateway.drop("tiny", name, BRIGHT)
    until(lambda: not gateway.counts("tiny")["Pending"] + gateway.counts("tiny")["Running"])
    second = Listener(browser, **{"Last-Event-ID": last})
    until(lambda: set(missed) <= set(second.keys("result")), 20)
    numbers = [int(number) for number, _, _ in second.events if number]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > int(last)
    second.close(gateway)


def test_live_events_tell_of_services(gateway: Gateway, browser: httpx2.Client) -> None:
    listener = Listener(browser)
    gateway.create("fleeting")
    with gateway.client() as http:
        http.delete("/system/services/fleeting")
    until(lambda: ("service", {"name": "fleeting", "deleted": True}) in [event[1:] for event in listener.events])
    listener.close(gateway)


def test_a_log_and_an_unknown_job(gateway: Gateway, browser: httpx2.Client) -> None:
    gateway.drop("tiny", "input/logged.png", BRIGHT)
    until(lambda: named(browser, "tiny", {"logged.png"}))
    job = named(browser, "tiny", {"logged.png"})["logged.png"]["job"]
    assert "logged.png: 2 found" in browser.get(f"/page/jobs/{job}/log").text
    assert browser.get("/page/jobs/none/log").status_code == 404
    assert browser.post("/page/jobs/none/retry").status_code == 404


def test_the_files_of_the_page_are_its_own(browser: httpx2.Client, gateway: Gateway) -> None:
    assert browser.get("/ui/index.html").status_code == 200
    for path in ("/ui/../page.py", "/ui/..%2fpage.py", "/ui/"):
        assert browser.get(path).status_code in (404, 405)
    assert Path(gateway.data / "credentials.yaml").exists()
