"""A real Chromium, and a real HTTP server with the console on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.serving.browser import chromium, console_page
from tests.serving.console.backend import ConsoleBackendStandIn
from tests.serving.console.catalogue import fill_store


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[ConsoleBackendStandIn]:
    with ConsoleBackendStandIn(fill_store(tmp_path)).running() as running:
        yield running


@pytest.fixture
def page(browser: Browser, backend: ConsoleBackendStandIn) -> Iterator[Page]:
    with console_page(browser, backend.url) as page:
        yield page
