"""An exposed service on the page of `buoy up`: its state as it changes, the way to its own page, its buttons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from support.browser import Visit
from support.exposed import Live, expose_model, expose_script
from support.gateway import Gateway, until


@pytest.fixture
def live(gateway: Gateway) -> Iterator[Live]:
    live = expose_script(gateway, "watcher")
    yield live
    with gateway.client() as http:
        http.delete("/system/services/watcher")


def test_it_is_seen_operated_and_opened(browser: Browser, gateway: Gateway, live: Live) -> None:
    tab = Visit(browser, gateway.url, live.name)
    try:
        page = tab.page
        page.get_by_role("link", name="Services", exact=True).click()
        card: Locator = page.locator("article.service").filter(has=page.get_by_role("heading", name="watcher"))
        pill = card.locator(".pill")
        expect(pill).to_have_text("running")
        card.get_by_role("button", name="Stop").click()
        expect(pill).to_have_text("stopped")
        expect(card.get_by_role("link", name="Open")).to_have_count(0)
        card.get_by_role("button", name="Start").click()
        expect(pill).to_have_text("running")
        before = live.pids()
        card.get_by_role("button", name="Restart").click()
        until(lambda: live.pids() and not {*live.pids()} & {*before})
        live.is_in("ready", 1)
        with tab.context.expect_page() as opened:
            card.get_by_role("link", name="Open").click()
        opened.value.wait_for_load_state()
        assert opened.value.url == f"{live.url}/"
        assert '"OSCAR_SERVICE_NAME":"watcher"' in opened.value.content()  # what the service itself answers
    finally:
        tab.context.close()
    assert tab.complaints == []


def test_the_page_of_a_model_works_behind_the_gateway(browser: Browser, gateway: Gateway, model: Path) -> None:
    """Its parts and its data are found below the exposed path, and nobody who has the gateway's page open is asked."""
    live = expose_model(gateway, "pier-live", model)
    live.is_in("ready", 1)
    tab = Visit(browser, gateway.url, live.name)
    try:
        with tab.context.expect_page() as opened:
            tab.page.get_by_role("link", name="its own page").click()
        page = opened.value
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
        page.reload(wait_until="networkidle")
        assert page.url == f"{live.url}/"
        expect(page.locator("h1, h2").first).to_be_visible()
        assert complaints == []
    finally:
        tab.context.close()
        with gateway.client() as http:
            http.delete("/system/services/pier-live")
