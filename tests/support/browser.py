"""A tab of a real browser that has the page of `buoy up` open."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from buoy.fdl import SCRIPT
from support.gateway import Gateway
from support.need import program

_ARGUMENTS = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-gpu",
]  # fmt: skip
#: The browser and the worker share the machine with the tests.
_PATIENCE_MS = 30_000
_DROP = """(files) => {
  const transfer = new DataTransfer();
  for (const { name, content } of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window, and without any traffic of its own."""
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=_ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A tab that has the page open; it notes what a page must not do."""

    def __init__(self, browser: Browser, url: str, service: str = "", **context: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}, "accept_downloads": True, **context}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(_PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.origin = url
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("dialog", lambda dialog: self._note("error", f"a dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._see(request.url))
        self.page.goto(f"{url}/?service={service}" if service else url)

    def drop(self, *files: tuple[str, bytes]) -> None:
        """Drop files on the page, as a hand would."""
        content = [{"name": name, "content": base64.b64encode(data).decode()} for name, data in files]
        self.page.evaluate(_DROP, content)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _see(self, url: str) -> None:
        if not url.startswith((self.origin, "blob:", "data:")):
            self.foreign.append(url)


def add_service(gateway: Gateway, name: str, model: Path) -> None:
    """Create a service for the model, with the script that a resident worker answers for."""
    variables = {"BUOY_MODEL": str(model), "BUOY_INPUT": f"{name}/input"}
    gateway.create(name, SCRIPT, environment={"Variables": variables})
