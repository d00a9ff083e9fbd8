"""The page of `buoy up` in a real browser: what is dropped is seen with its findings, and everything else it offers."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from support.browser import Visit, add_service
from support.gateway import Gateway, running, until
from support.tiny import STRIDE, picture_with_squares, png

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
HOSTILE = "<img src=x onerror=alert(1)>.png"


def one_square() -> bytes:
    return png(picture_with_squares((1, 2)))


def bright_and_red() -> bytes:
    """A bright square in cell (0, 0), a dimmer red one in cell (3, 3)."""
    pixels = picture_with_squares((0, 0))
    pixels[3 * STRIDE :, 3 * STRIDE :] = (178, 0, 0)
    return png(pixels)


def card_of(page: Page, name: str) -> Locator:
    return page.locator(".card").filter(has_text=name)


def rows_of(page: Page, what: str, service: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("link", name=what, exact=True).click()
    assert download.value.suggested_filename.startswith(service)
    return Path(download.value.path()).read_bytes()


def fits(page: Page) -> bool:
    fitting: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fitting


def assert_box_lies(picture: Locator, box: Locator, expected: list[float], size: tuple[int, int]) -> None:
    """The outline of `box` is `expected` (x1, y1, x2, y2 of a picture of `size`: width, height), to a pixel."""
    frame, drawn = picture.bounding_box(), box.bounding_box()
    assert frame is not None
    assert drawn is not None
    assert frame["width"] / frame["height"] == pytest.approx(size[0] / size[1], rel=0.01)
    scale = frame["width"] / size[0]
    assert [drawn["x"] - frame["x"], drawn["y"] - frame["y"], drawn["width"], drawn["height"]] == pytest.approx(
        [expected[0] * scale, expected[1] * scale, *(scale * (expected[i + 2] - expected[i]) for i in (0, 1))], abs=1
    )


def test_a_dropped_picture_appears_with_its_box_where_the_square_is(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#empty")).to_contain_text("No results yet")
    visit.drop(("square.png", one_square()))
    card = card_of(page, "square.png")
    expect(card.locator(".box .label")).to_have_text("bright 1.00")
    expect(card.locator(".caption")).to_contain_text("1 bright")
    expect(page.locator("#uploads-list")).to_contain_text("done: 1 bright")
    expect(page.locator(".counter[data-state=done] dd")).to_have_text("1")
    cell = [2.0 * STRIDE, 1.0 * STRIDE, 3.0 * STRIDE, 2.0 * STRIDE]
    assert_box_lies(card.locator(".picture img"), card.locator(".box"), cell, (64, 64))


def test_boxes_of_a_turned_photograph_lie_on_the_upright_picture(visit: Visit, gateway: Gateway, service: str) -> None:
    upright = np.zeros((128, 64, 3), np.uint8)
    upright[32:64, 0:32] = 255
    photo, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(photo, "JPEG", quality=100, subsampling=0, exif=exif)
    visit.drop(("turned.jpg", photo.getvalue()))
    card = card_of(visit.page, "turned.jpg")
    expect(card.locator(".box")).to_have_count(1)
    folder = gateway.data / "buckets" / service / "output"
    box = json.loads((folder / "turned.jpg.json").read_bytes())["detections"][0]["box"]
    assert box == pytest.approx([0, 32, 32, 64], abs=1)
    assert_box_lies(card.locator(".picture img"), card.locator(".box"), box, (64, 128))


def test_a_file_copied_into_the_folder_appears_by_itself(visit: Visit, gateway: Gateway, service: str) -> None:
    expect(visit.page.locator("#link")).to_have_text("live")
    gateway.drop(service, "input/copied.png", one_square())
    expect(card_of(visit.page, "copied.png").locator(".box")).to_have_count(1)


def test_labels_and_scores_filter_boxes_and_gallery(visit: Visit) -> None:
    page = visit.page
    visit.drop(("both.png", bright_and_red()), ("bright.png", one_square()), ("none.png", png(picture_with_squares())))
    expect(page.locator(".card")).to_have_count(3)
    chips = page.locator("#chips .chip")
    expect(chips).to_have_text(["bright2", "red1", "nothing found1"])
    page.get_by_role("checkbox", name="bright").uncheck()
    expect(page.locator(".card")).to_have_count(2)
    expect(card_of(page, "both.png").locator(".label")).to_have_text("red 0.70")
    page.get_by_role("checkbox", name="nothing found").uncheck()
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("checkbox", name="bright").check()
    page.get_by_label("Score at least").fill("0.75")
    expect(page.locator("#score-number")).to_have_text("0.75")
    expect(page.locator(".card")).to_have_count(2)
    expect(card_of(page, "both.png").locator(".label")).to_have_text("bright 1.00")
    expect(chips).to_have_text(["bright2", "red0", "nothing found1"])
    page.get_by_role("checkbox", name="bright").uncheck()
    expect(page.locator("#empty")).to_contain_text("Nothing passes the filter")


def test_the_large_view_works_by_keyboard(visit: Visit, service: str) -> None:
    page = visit.page
    visit.drop(("first.png", bright_and_red()))
    expect(page.locator(".card")).to_have_count(1)
    visit.drop(("second.png", one_square()))
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("button", name="second.png: 1 bright").focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("heading")).to_have_text("second.png")
    expect(viewer.locator("#viewer-place")).to_have_text("1 of 2")
    page.keyboard.press("ArrowRight")
    expect(viewer.get_by_role("heading")).to_have_text("first.png")
    expect(viewer.locator("tbody tr")).to_have_text(["bright1.0000, 0, 16, 16", "red0.69848, 48, 64, 64"])
    expect(viewer.get_by_role("link", name="red")).to_have_attribute(
        "href", "https://www.marinespecies.org/aphia.php?p=taxdetails&id=125559"
    )
    assert_box_lies(viewer.locator(".picture img"), viewer.locator(".box[data-index='1']"), [48, 48, 64, 64], (64, 64))
    expect(viewer.locator(".badge")).to_have_text("demo weights: draw no conclusions")
    with page.expect_download() as download:
        viewer.get_by_role("link", name="JSON").click()
    record = json.loads(Path(download.value.path()).read_bytes())
    assert download.value.suggested_filename == "first.png.json"
    assert [found["label"] for found in record["detections"]] == ["bright", "red"]
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(page.get_by_role("button", name="first.png: 1 bright, 1 red")).to_be_focused()


def test_all_results_download_as_json_lines_csv_and_coco(visit: Visit, service: str) -> None:
    page = visit.page
    visit.drop(("both.png", bright_and_red()), ("none.png", png(picture_with_squares())))
    expect(page.locator(".card")).to_have_count(2)
    lines = [json.loads(line) for line in rows_of(page, "JSON lines", service).splitlines()]
    assert sorted(line["input"]["name"] for line in lines) == ["both.png", "none.png"]
    table = list(csv.DictReader(io.StringIO(rows_of(page, "CSV", service).decode())))
    assert sorted((row["name"], row["status"], row["label"]) for row in table) == [
        ("both.png", "found", "bright"), ("both.png", "found", "red"), ("none.png", "none", "")
    ]  # fmt: skip
    coco = json.loads(rows_of(page, "COCO", service))
    assert len(coco["images"]) == 2
    assert sorted(tuple(each["bbox"]) for each in coco["annotations"]) == [(0, 0, 16, 16), (48, 48, 16, 16)]


def test_a_bad_file_says_what_is_wrong_and_what_to_do(visit: Visit, gateway: Gateway, service: str) -> None:
    page = visit.page
    visit.drop(("words.jpg", b"this is no picture"), ("square.png", one_square()))
    failure = card_of(page, "words.jpg")
    error = json.loads(
        _when_there(failure, gateway.data / "buckets" / service / "output" / "words.jpg.error.json")
    )["error"]  # fmt: skip
    expect(failure.locator(".message")).to_have_text(error["message"])
    expect(failure.locator(".hint")).to_have_text(f"What to do: {error['hint']}")
    expect(page.locator("#uploads-list li").filter(has_text="words.jpg")).to_contain_text(error["message"])
    expect(card_of(page, "square.png").locator(".box")).to_have_count(1)
    page.get_by_role("link", name="Jobs").click()
    row = page.locator("#jobs-rows tr").filter(has_text="words.jpg")
    expect(row.locator(".pill")).to_have_text("failed")
    row.get_by_role("button", name="Log").click()
    expect(page.locator("#log-text")).to_contain_text("words.jpg")
    page.keyboard.press("Escape")
    (before,) = gateway.jobs(service, state="Failed")
    row.get_by_role("button", name="Retry").click()
    until(lambda: [job for job in gateway.jobs(service, state="Failed") if job["finished"] > before["finished"]])
    expect(row.locator(".pill")).to_have_text("failed")


def _when_there(shown: Locator, file: Path) -> bytes:
    expect(shown).to_be_visible()
    return file.read_bytes()


def test_a_file_over_the_limit_is_refused_in_words(visit: Visit) -> None:
    visit.page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(65 * 2 ** 20)], "huge.tif"));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }"""
    )
    row = visit.page.locator("#uploads-list li")
    expect(row.locator(".word")).to_have_text("refused")
    expect(row.locator(".detail")).to_contain_text("huge.tif is larger than 64 MiB")
    expect(row.locator(".detail")).to_contain_text("What to do:")


def test_a_hostile_file_name_is_shown_as_text(visit: Visit) -> None:
    page = visit.page
    visit.drop((HOSTILE, one_square()))
    expect(page.locator(".card .caption .name")).to_have_text(HOSTILE)
    expect(page.locator("#uploads-list .name")).to_have_text(HOSTILE)
    page.locator(".card .open").click()
    expect(page.locator("#viewer-name")).to_have_text(HOSTILE)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Jobs").click()
    expect(page.locator("#jobs-rows .name")).to_have_text(HOSTILE)
    assert page.locator("img[src='x']").count() == 0


def test_pictures_of_a_zip_come_in_pages(visit: Visit) -> None:
    page, archive = visit.page, io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for number in range(60):
            made.writestr(f"dive/{number:02}.png", one_square())
    visit.drop(("dive.zip", archive.getvalue()))
    expect(page.locator("#results-summary")).to_have_text("60 pictures, 60 objects")
    expect(page.locator(".card")).to_have_count(48)
    first = page.locator(".card img").first
    expect(first).to_have_js_property("complete", True)
    assert first.evaluate("image => image.naturalWidth") == 64, "the picture itself, out of the zip"
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(60)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_services_show_what_they_are_and_their_fdl(visit: Visit, gateway: Gateway, service: str) -> None:
    page = visit.page
    expect(page.locator("#about")).to_contain_text("detect · model tiny")
    expect(page.locator("#about .badge")).to_have_text("demo weights: draw no conclusions")
    page.get_by_role("link", name="Services").click()
    card = page.locator(".service").filter(has=page.get_by_role("heading", name=service, exact=True))
    expect(card.locator("dl")).to_contain_text(f"{service}/input")
    expect(card.locator("dl")).to_contain_text(str(gateway.data / "buckets" / service / "input"))
    card.get_by_text("FDL", exact=True).click()
    expect(card.locator("pre")).to_contain_text(f"name: {service}")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_overflows_at_phone_width(browser: Browser, gateway: Gateway, service: str, scheme: str) -> None:
    visit = Visit(browser, gateway.url, service, color_scheme=scheme, **PHONE)
    page = visit.page
    visit.drop((f"{'a-long-name-' * 12}.png", bright_and_red()), ("words.jpg", b"this is no picture"))
    expect(page.locator(".card")).to_have_count(2)
    assert fits(page)
    page.locator(".card .open").tap()
    expect(page.locator("#viewer tbody tr")).to_have_count(2)
    assert fits(page)
    page.get_by_role("button", name="Close").tap()
    for view, there in (("Jobs", "#jobs-rows tr"), ("Services", ".service")):
        page.get_by_role("link", name=view).tap()
        expect(page.locator(there).first).to_be_visible()
        assert fits(page)
    visit.context.close()
    assert visit.complaints == []


def test_everything_is_reached_with_the_tab_key(visit: Visit) -> None:
    page = visit.page
    visit.drop(("square.png", one_square()))
    expect(page.locator(".card .box")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    order = [name for name in ("service", "files", "score", "open") if name in reached]
    assert order == ["service", "files", "score", "open"]
    assert [reached.index(name) for name in order] == sorted(reached.index(name) for name in order)


def test_the_page_goes_on_after_the_server_was_away(browser: Browser, tmp_path: Path, model: Path) -> None:
    with running(tmp_path / "data") as gateway:
        add_service(gateway, "tiny", model)
        visit = Visit(browser, gateway.url)
        page = visit.page
        expect(page.locator("#link")).to_have_text("live")
        gateway.stop()
        expect(page.locator("#notice")).to_contain_text("The server is away")
        visit.drop(("meanwhile.png", one_square()))
        gateway.drop("tiny", "input/copied.png", one_square())
        gateway.start()
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator(".card .box")).to_have_count(2)
        visit.context.close()


def test_from_elsewhere_one_signs_in(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "data", "--host", "0.0.0.0") as gateway:
        visit = Visit(browser, gateway.url)
        page = visit.page
        page.get_by_label("User").fill(gateway.credentials["username"])
        page.get_by_label("Password").fill("a guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("wrong")
        page.get_by_label("User").fill(gateway.credentials["username"])
        page.get_by_label("Password").fill(gateway.credentials["password"])
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        visit.context.close()
