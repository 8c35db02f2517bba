"""A real Chromium, and pages that must not log errors nor ask other servers."""

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; the test is skipped where none is installed."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs Chromium: install the package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def console_page(browser: Browser, url: str) -> Iterator[Page]:
    """A page at 1280 × 800 for the console of the server at `url`.

    In the end it must have logged no error and asked no one else.
    """
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, base_url=f"{url}/console/"
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    errors: list[str] = []
    foreign: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if is_error(message) else None)
    page.on("request", lambda r: None if r.url.startswith(url) else foreign.append(r.url))
    yield page
    context.close()
    assert errors == []
    assert foreign == []


def is_error(message) -> bool:
    """Whether the page's code is at fault; Chromium itself logs every answer from 400."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")
