"""Batch runs on the page of `buoy up`: what a run's command notes is seen while it goes on, and what came out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from support.batch import BatchRun, make_source
from support.browser import Visit
from support.gateway import Gateway, running
from support.tiny import make_model, picture_with_squares, png


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def page_of(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("runs") / "data", env={"XDG_STATE_HOME": str(state)}) as up:
        yield up


@pytest.mark.parametrize("width", [360, 1280])
def test_a_run_is_seen_while_it_goes_on_and_when_it_is_done(
    browser: Browser, page_of: Gateway, state: Path, tmp_path: Path, width: int
) -> None:
    tab = Visit(browser, page_of.url, viewport={"width": width, "height": 800})
    page = tab.page
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.locator("#run-list")).to_contain_text("No run yet")
    source = make_source(tmp_path / "source", 60, bad_every=20)
    (source / "cam1" / "poison-hang.png").write_bytes(png(picture_with_squares((0, 0))))
    env = {"XDG_STATE_HOME": str(state), "BUOY_POISON": "1"}
    run = BatchRun(make_model(tmp_path), str(source), str(tmp_path / "out"), env, ("--item-timeout", "2"))
    assert run.run("--dry-run").returncode == 0
    run.plan(*range(0, 61, 10), 61)
    command = run.start()
    card = page.locator(f'article[data-run="{run.name}"]')
    expect(card.locator(".pill")).to_have_text("running")
    expect(card).to_contain_text("InputError")
    expect(card).to_contain_text("of 61 objects")
    expect(card).to_contain_text("demo weights")
    expect(card.locator("dd").filter(has_text=" to ")).to_have_count(1)
    _shoot(tab, f"runs-{width}-running")
    assert command.wait(60) == 3
    command.communicate()
    expect(card.locator(".pill")).to_have_text("done")
    expect(card).to_contain_text("61 of 61 objects")
    expect(card).to_contain_text("3 InputError")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    _shoot(tab, f"runs-{width}-done")
    tab.context.close()
    assert tab.complaints == []
    assert tab.foreign == []


def _shoot(tab: Visit, name: str) -> None:
    if folder := os.environ.get("BUOY_SCREENSHOTS"):
        tab.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
