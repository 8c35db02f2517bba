"""The console in Chromium, on the server itself."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.serving import tiny
from tests.serving.browser import chromium, console_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(live) -> Iterator[Page]:
    """Signed in as an admin."""
    with chromium() as browser, console_page(browser, live.server.url) as page:
        page.goto("#/adapters")
        page.get_by_label("API key").fill(live.keys["admin"])
        page.get_by_role("button", name="Sign in").click()
        yield page


def test_the_table_shows_the_stores_adapters_and_sorts_them(page, live):
    page.goto("#/adapters?query=all-15")
    expect(page.locator('tr[data-reference="all-15@v1"]')).to_be_visible()
    names = sorted({version.name for version in live.store.list()})
    for sort, first in (("reference", names[0]), ("-reference", names[-1])):
        page.goto(f"#/adapters?sort={sort}")
        expect(page.locator("tbody tr").first).to_contain_text(first)


def test_an_adapter_is_loaded_and_pinned(page, live):
    live.server.admin("POST", "/adapters/attn-1@v1/unload", {"force": True})
    page.goto("#/adapters/attn-1@v1")
    panel = page.get_by_role("complementary", name="attn-1@v1")
    panel.get_by_role("button", name="Load").click()
    expect(panel.locator(".state")).to_have_text("slot")
    panel.get_by_role("button", name="Pin", exact=True).click()
    expect(panel.locator(".panel-state")).to_contain_text("pinned")
    assert live.server.admin("GET", "/adapters/attn-1@v1")["pinned"]
    panel.get_by_role("button", name="Unpin").click()
    expect(panel.locator(".panel-state")).not_to_contain_text("pinned")


def test_the_playground_asks_base_adapters_and_a_blend_at_once(page, live, expected):
    models = ("all-15", "mlp-3@v1", "all-15:0.5+mlp-3:0.5")
    page.goto("#/playground")
    expect(page.locator(".chip")).to_contain_text(["tiny-base"])
    for model in models:
        page.get_by_label("Models", exact=True).fill(model)
        page.get_by_role("button", name="Add").click()
    page.get_by_label("Max tokens").fill("8")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Prompt", exact=True).fill(tiny.PROMPTS[0])
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_have_text("4 of 4 answers complete", timeout=60_000)
    answer = page.locator('article[data-model="all-15"]')
    expect(answer).to_contain_text("answered by all-15@v1")
    whole = live.server.complete("all-15", tiny.PROMPTS[0], 8, ignore_eos=False)
    text = whole.json()["choices"][0]["text"]
    assert answer.locator(".answer-text").text_content() == text


def test_the_live_page_shows_the_servers_metrics(page, live):
    page.goto("#/live")
    expect(page.locator(".tiles")).to_contain_text("0 pinned")
    live.server.complete("all-15", tiny.PROMPTS[0], 8)
    figure = page.get_by_role("figure").first
    expect(figure.locator("path.line").first).to_be_attached(timeout=30_000)
