"""A real browser on a real `buoy up`, with a service of its own for every test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.browser import Visit, add_service, chromium
from support.gateway import Gateway, running
from support.tiny import make_model

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each has a context of its own."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One `buoy up` for all tests that do not stop it; its workers leave soon."""
    with running(tmp_path_factory.mktemp("page") / "data", "--idle", "3") as up:
        yield up


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny detector."""
    return make_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def service(gateway: Gateway, model: Path) -> str:
    """The name of a new service that runs the tiny detector."""
    name = f"tiny-{next(_numbers)}"
    add_service(gateway, name, model)
    return name


@pytest.fixture
def visit(browser: Browser, gateway: Gateway, service: str) -> Iterator[Visit]:
    """The page, on the service of the test; afterwards, that it behaved."""
    tab = Visit(browser, gateway.url, service)
    yield tab
    tab.context.close()
    assert tab.complaints == []
    assert tab.foreign == []
