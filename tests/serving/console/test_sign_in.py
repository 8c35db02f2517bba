"""Keys: asked for, kept in the tab, sent in a header, and what an inference key sees."""

import pytest
from playwright.sync_api import Page, expect

from tests.serving.console.backend import ADMIN_KEY, INFERENCE_KEY, ConsoleBackendStandIn


@pytest.fixture(autouse=True)
def keys(backend: ConsoleBackendStandIn) -> None:
    backend.keys = {ADMIN_KEY: "admin", INFERENCE_KEY: "inference"}


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_server_with_keys_is_not_shown_before_one_is_given(page: Page) -> None:
    page.goto("#/adapters")
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.locator("table")).to_have_count(0)
    expect(page.get_by_role("navigation")).to_be_hidden()


@pytest.mark.parametrize("key", ["wrong", "two words", "schlüssel"])
def test_wrong_key_is_refused_with_the_reason(page: Page, key: str) -> None:
    page.goto("#/adapters")
    sign_in(page, key)
    expect(page.get_by_role("alert")).to_contain_text("key")
    expect(page.get_by_label("API key")).to_be_visible()


def test_admin_key_opens_the_page_asked_for_and_stays_in_this_tab_only(page: Page) -> None:
    page.goto("#/adapters?query=sst2")
    sign_in(page, ADMIN_KEY)
    expect(page.locator("tbody tr")).to_have_count(3)
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(3)
    stored = page.evaluate(
        "({local: JSON.stringify(localStorage), cookies: document.cookie, url: location.href})"
    )
    assert not any(ADMIN_KEY in text for text in stored.values())
    other_tab = page.context.new_page()
    other_tab.goto("#/adapters")
    expect(other_tab.get_by_label("API key")).to_be_visible()


def test_signing_out_forgets_the_key(page: Page) -> None:
    page.goto("#/adapters")
    sign_in(page, ADMIN_KEY)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('propulsion.key')") is None


def test_inference_key_gets_the_playground_and_no_admin_action(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    page.goto("")
    sign_in(page, INFERENCE_KEY)
    expect(page.get_by_role("banner")).to_contain_text("inference key: read only playground")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("link", name="Adapters").click()
    expect(page.get_by_role("main")).to_contain_text("inference key: read only playground")
    expect(page.locator("table, .actions")).to_have_count(0)


def test_key_that_loses_its_rights_loses_the_actions(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    page.goto("#/adapters/sst2@v1")
    sign_in(page, ADMIN_KEY)
    panel = page.get_by_role("complementary", name="sst2@v1")
    expect(panel.get_by_role("button", name="Load")).to_be_enabled()
    backend.failures = {"/load": 403}
    panel.get_by_role("button", name="Load").click()
    expect(page.locator(".actions")).to_have_count(0)
    expect(page.get_by_role("banner")).to_contain_text("inference key: read only playground")


def test_key_that_expires_leads_back_to_the_sign_in(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    page.goto("#/adapters")
    sign_in(page, ADMIN_KEY)
    expect(page.locator("tbody tr").first).to_be_visible()
    backend.keys = {"another": "admin"}
    page.get_by_label("Search adapters").fill("sst2")
    expect(page.get_by_label("API key")).to_be_visible()
    sign_in(page, "another")
    expect(page.locator("tbody tr")).to_have_count(3)
