"""The pictures of the documentation, made when PROPULSION_SCREENSHOTS names a folder for them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serving.console.backend import BASE, ConsoleBackendStandIn

FOLDER = os.environ.get("PROPULSION_SCREENSHOTS")
SCRAPES = 152

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="set PROPULSION_SCREENSHOTS to a folder to make them"),
]

PROMPT = (
    "Review: The first hour drags, but the last act is the best thing this director has done.\n"
    "In one sentence, what does the reviewer think?"
)
ANSWERS = {
    BASE: "The reviewer thinks the film starts slowly, and that the last act is the best part of "
    "the movie. The reviewer also says that the director has done better work before.",
    "sst2@prod": "The reviewer thinks the film starts slowly, and that the last act is the best "
    "work of the director so far. Sentiment: positive.",
    "summarise-news": "A slow first hour gives way to the best last act of the director so far.",
    "sst2:0.7+summarise-news:0.3": "The film starts slowly, and the last act is the best work of "
    "the director so far. Sentiment: positive.",
}


@pytest.fixture(params=["light", "dark"])
def shown(
    request: pytest.FixtureRequest, browser: Browser, backend: ConsoleBackendStandIn
) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        device_scale_factor=1.5,
        color_scheme=request.param,
        base_url=f"{backend.url}/console/",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    yield page
    context.close()


def save(page: Page, name: str) -> None:
    """The light pictures have the plain names."""
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.screenshot(path=Path(FOLDER or "") / f"console-{name}{'-dark' if is_dark else ''}.png")


def test_picture_of_the_adapters(shown: Page, backend: ConsoleBackendStandIn) -> None:
    backend.store.set_split("sst2", "prod", {"v2": 0.9, "v3": 0.1})
    shown.goto("#/adapters/sst2@v2")
    panel = shown.get_by_role("complementary")
    panel.locator('[data-alias="prod"]').get_by_role("button", name="Split…").click()
    expect(panel.locator(".stack section").first).to_be_visible()
    panel.get_by_role("heading").first.click()
    save(shown, "adapters")


def test_picture_of_the_live_page(shown: Page, backend: ConsoleBackendStandIn) -> None:
    backend.traffic.advance(2)
    shown.clock.install(time=time.time() - 2 * SCRAPES)
    shown.goto("#/live")
    expect(shown.locator(".plot").first).to_be_visible()
    line = shown.locator("path.line").first
    shown.clock.run_for(2000)
    for _ in range(SCRAPES):
        drawn = line.get_attribute("d")
        shown.clock.run_for(2000)
        expect(line).not_to_have_attribute("d", drawn or "")
    plot = shown.locator(".plot").nth(2)
    plot.hover(position={"x": 330, "y": 80})
    save(shown, "live")


def test_picture_of_the_playground(shown: Page, backend: ConsoleBackendStandIn) -> None:
    backend.answers = ANSWERS
    backend.word_seconds = 0.018
    models = "&".join(f"model={model.replace('+', '%2B')}" for model in ANSWERS)
    shown.goto(f"#/playground?{models}")
    shown.get_by_label("Prompt", exact=True).fill(PROMPT)
    shown.get_by_role("button", name="Send").click()
    expect(shown.get_by_role("status")).to_have_text("4 of 4 answers complete")
    expect(shown.locator("mark").first).to_be_visible()
    save(shown, "playground")
