"""The page of live streams in a real browser: a camera is watched with boxes on it, and an outage says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from buoy.outputs.drawn import COLOURS
from support.browser import Visit
from support.exposed import expose_model
from support.gateway import Gateway
from support.live import pushing, socket
from support.need import CHECKOUT
from support.rtsp import rtsp_camera
from support.serve import Served, serving
from support.tiny import picture_with_squares

OBSEA = CHECKOUT / "functions" / "obsea-fish"
TOKEN = "correct-horse"
BASE = "/system/services/fish-live/exposed"
#: How many pixels of the picture have the colour of a class, give or take what JPEG does to it.
PIXELS_OF = """([red, green, blue]) => {
  const image = document.querySelector("#frame img");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let many = 0;
  for (let at = 0; at < data.length; at += 4) {
    const off = Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue);
    many += off < 40;
  }
  return many;
}"""
SHOWN = "document.querySelector('#frame img')?.naturalWidth > 0"
PATIENCE_S = 60.0


def streams(folder: Path, **sources: str) -> Path:
    """The operator's file."""
    path = folder / "streams.yaml"
    path.write_text("".join(f"- name: {name}\n  source: '{source}'\n" for name, source in sources.items()))
    return path


def jpeg(*cells: tuple[int, int]) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(picture_with_squares(*cells), cv2.COLOR_RGB2BGR))[1].tobytes()


def until(page: Page, condition: str) -> None:
    """Wait for an expression; the page's policy forbids what Playwright's own waiting needs."""
    end_s = time.monotonic() + PATIENCE_S
    while not page.evaluate(condition):
        assert time.monotonic() < end_s, condition
        page.wait_for_timeout(50)


def fits(page: Page) -> bool:
    fitting: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fitting


@pytest.fixture(scope="module")
def pushed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny detector with two streams that tests push into, below OSCAR's path."""
    folder = tmp_path_factory.mktemp("pushed")
    env = {"OSCAR_SERVICE_BASE_PATH": BASE, "OSCAR_SERVICE_NAME": "fish-live"}
    options = ("--streams", str(streams(folder, west="push:", east="push:")))
    with serving(folder, model, options=options, **env) as served:
        served.url = served.url.removesuffix(BASE)
        yield served


def test_a_camera_is_watched_with_boxes_over_https_with_a_token(browser: Browser, tmp_path: Path) -> None:
    samples = sorted((OBSEA / "sample").glob("*.jpg"))
    pictures = [cv2.cvtColor(cv2.imread(str(each)), cv2.COLOR_BGR2RGB) for each in samples]
    with rtsp_camera(tmp_path / "camera", pictures, width=960, height=540, fps=2, key_every=2) as camera:
        options = ("--tls", "self", "--data", str(tmp_path / "data"), "--streams")
        options = (*options, str(streams(tmp_path, reef=camera.url)))
        with serving(tmp_path, OBSEA, options=options, BUOY_TOKEN=TOKEN) as served:
            visit = Visit(browser, served.url, ignore_https_errors=True)
            page = visit.page
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Open").click()
            expect(page.locator("#state-word")).to_have_text("live")
            until(page, SHOWN)
            until(page, f"({PIXELS_OF})([{','.join(map(str, COLOURS[0]))}]) > 200")
            expect(page.locator("#now")).to_contain_text("fish")
            expect(page.locator("#demo")).to_have_text("demo weights: draw no conclusions")
            expect(page.locator("#facts")).to_contain_text("Latency")
            expect(page.locator("#chart path.line")).not_to_have_count(0)
            expect(page.locator("#outages-none")).to_be_visible()
            camera.kill()
            expect(page.locator("#outage-what")).to_have_text("No picture from the camera")
            expect(page.locator("#outage-since")).to_contain_text("since")
            expect(page.locator("#frame img")).to_have_count(0)  # no old picture, which might be taken for a live one
            camera.start()
            expect(page.locator("#state-word")).to_have_text("live")
            expect(page.locator("#outage")).to_be_hidden()
            expect(page.locator("#outages li")).to_have_count(1)
            visit.context.close()
            assert visit.complaints == []
            assert visit.foreign == []


def test_streams_are_chosen_by_name_below_a_path_whether_or_not_it_ends_in_a_slash(
    browser: Browser, pushed: Served
) -> None:
    with pushing(pushed, "west", jpeg((0, 0)), pause_s=0.1), pushing(pushed, "east", jpeg((0, 0), (2, 2)), pause_s=0.1):
        visit = Visit(browser, f"{pushed.url}{BASE}")
        page = visit.page
        expect(page.locator("#place")).to_have_text("west")
        expect(page.locator("#now .many")).to_have_text("1")
        until(page, SHOWN)
        page.get_by_role("link", name="east").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#place")).to_have_text("east")
        expect(page.locator("#now .many")).to_have_text("2")
        until(page, SHOWN)
        page.goto(f"{pushed.url}{BASE}/#west")
        expect(page.locator("#place")).to_have_text("west")
        visit.context.close()
    assert visit.complaints == []
    assert visit.foreign == []


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_the_page_fits(browser: Browser, pushed: Served, width: int) -> None:
    with pushing(pushed, "west", jpeg((0, 0)), pause_s=0.1):
        visit = Visit(browser, f"{pushed.url}{BASE}/", viewport={"width": width, "height": 800}, color_scheme="dark")
        expect(visit.page.locator("#now .many")).to_have_text("1")
        until(visit.page, SHOWN)
        assert fits(visit.page)
        visit.context.close()


def test_what_stops_coming_is_not_shown_as_live(browser: Browser, pushed: Served) -> None:
    visit = Visit(browser, f"{pushed.url}{BASE}/#east")
    with pushing(pushed, "east", jpeg((0, 0)), pause_s=0.1):
        expect(visit.page.locator("#state-word")).to_have_text("live")
    expect(visit.page.locator("#outage")).to_be_visible()
    expect(visit.page.locator("#scene")).to_have_class("scene old")
    with pushing(pushed, "east", jpeg((0, 0)), pause_s=0.1):
        expect(visit.page.locator("#state-word")).to_have_text("live")
        expect(visit.page.locator("#outage")).to_be_hidden()
    visit.context.close()


def test_a_picture_that_stands_still_is_not_called_live(browser: Browser, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "streams.yaml"
    path.write_text("- {name: still, source: 'push:', frozen_after_s: 1}")
    with serving(tmp_path, model, options=("--streams", str(path))) as served:
        visit = Visit(browser, served.url)
        with pushing(served, "still", jpeg((0, 0)), pause_s=0.1):
            expect(visit.page.locator("#state-word")).to_have_text("frozen")
            expect(visit.page.locator("#flags")).to_contain_text("does not count")
        with pushing(served, "still", jpeg((0, 0)), jpeg((1, 1)), pause_s=0.1):
            expect(visit.page.locator("#state-word")).to_have_text("live")
        visit.context.close()
        assert visit.complaints == []


def test_the_picture_is_the_one_whose_findings_are_told(browser: Browser, pushed: Served) -> None:
    pixels = f"({PIXELS_OF})([{','.join(map(str, COLOURS[0]))}])"
    visit = Visit(browser, f"{pushed.url}{BASE}/#west")
    with socket(pushed, "/streams/west/push") as camera:
        for _ in range(3):
            camera.send(jpeg((1, 1)))
            visit.page.wait_for_timeout(300)
        expect(visit.page.locator("#now .many")).to_have_text("1")
        until(visit.page, f"{SHOWN} && {pixels} > 0")
        before = visit.page.evaluate(pixels)
        camera.send(jpeg(*((row, column) for row in range(4) for column in range(4))))
        expect(visit.page.locator("#now .many")).to_have_text("16")
        until(visit.page, f"{pixels} > {before * 1.5}")
        visit.context.close()


def test_the_page_counts_what_was_dropped_as_the_service_does(browser: Browser, pushed: Served) -> None:
    good, broken = jpeg((0, 0)), jpeg((0, 0))[:200]

    def fact(term: str) -> Locator:
        return visit.page.locator(f"//*[@id='facts']/dt[.='{term}']/following-sibling::dd[1]")

    def dropped() -> dict[str, int]:
        found: dict[str, int] = http.get("/streams/counted").json()["counts"]["dropped"]
        return found

    with pushed.client() as http, ExitStack() as stack:
        assert http.post("/streams", json={"name": "counted", "source": "push:"}).status_code == 201
        stack.callback(http.delete, "/streams/counted")
        camera = stack.enter_context(socket(pushed, "/streams/counted/push"))
        visit = Visit(browser, f"{pushed.url}{BASE}/#counted")
        while not visit.page.locator("#now .many").count():  # it has begun, and the page listens
            camera.send(good)
            visit.page.wait_for_timeout(100)
        before = sum(dropped().values())
        expect(fact("Dropped")).to_have_text(str(before))
        for more, total in ((3, before + 3), (2, before + 5)):
            for _ in range(more):
                camera.send(broken)
            pushed.until(lambda total=total: sum(dropped().values()) == total)
            expect(fact("Dropped")).to_have_text(str(total))
            expect(fact("could not be decoded")).to_have_text(str(dropped()["undecodable"]))
        visit.context.close()
    assert visit.complaints == []


def test_a_hidden_page_leaves_nothing_open(browser: Browser, pushed: Served) -> None:
    def viewers() -> float:
        return pushed.metric("buoy_stream_viewers", stream="west")

    with pushing(pushed, "west", jpeg((0, 0)), pause_s=0.1):
        visit = Visit(browser, f"{pushed.url}{BASE}/")
        until(visit.page, SHOWN)
        assert viewers() == 1
        hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
        visit.page.evaluate(f"{hide % 'true'}; document.dispatchEvent(new Event('visibilitychange'))")
        pushed.until(lambda: viewers() == 0)
        visit.page.evaluate(f"{hide % 'false'}; document.dispatchEvent(new Event('visibilitychange'))")
        pushed.until(lambda: viewers() == 1)
        visit.context.close()
    pushed.until(lambda: viewers() == 0)


@pytest.mark.parametrize("rewrite", [True, False])
def test_the_page_is_watched_through_buoy_up(browser: Browser, gateway: Gateway, model: Path, rewrite: bool) -> None:
    live = expose_model(
        gateway, f"watch-{rewrite}".lower(), model, max_scale=1, rewrite_target=rewrite, auth_type="forward"
    )
    live.is_in("ready", 1)
    with live.client() as http:
        assert http.post("/streams", json={"name": "reef", "source": "push:"}).status_code == 201
    token = {"Authorization": f"Bearer {live.token}"}
    with pushing(live, "reef", jpeg((0, 0)), pause_s=0.1, additional_headers=token):
        visit = Visit(browser, f"{live.url}/?token={live.token}")
        expect(visit.page.locator("#now .many")).to_have_text("1")
        until(visit.page, SHOWN)
        visit.context.close()
    assert visit.complaints == []
    assert [url for url in visit.foreign if not url.startswith(live.url)] == []
