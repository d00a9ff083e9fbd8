"""An exposed service on the page of `buoy up`: its state as it changes, the way to its own page, its buttons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from support.browser import Visit
from support.exposed import Live, expose_script
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
