"""The adapters page in Chromium: the table, the panel, and what admins can do."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.serving.console.backend import ConsoleBackendStandIn
from tests.serving.console.catalogue import many


def row(page: Page, reference: str):
    return page.locator(f'tr[data-reference="{reference}"]')


def open_panel(page: Page, reference: str):
    page.goto(f"#/adapters/{reference}")
    panel = page.get_by_role("complementary", name=reference)
    expect(panel.locator(".stack section").first).to_be_visible()
    return panel


def confirm(page: Page, action: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=action, exact=True).click()


@pytest.mark.parametrize("state", ["slot", "host", "loading", "failed", "stored"])
def test_table_shows_each_state_in_words_and_filters_by_it(page: Page, state: str) -> None:
    page.goto("#/adapters")
    page.get_by_label("State").select_option(state)
    expect(page.locator("tbody tr .state").first).to_have_text(state)
    expect(page.locator(f'tbody .state:not([data-state="{state}"])')).to_have_count(0)


def test_row_shows_version_aliases_pin_slot_and_requests(page: Page) -> None:
    page.goto("#/adapters")
    cells = row(page, "sst2@v2")
    expect(cells).to_contain_text("sst2@v2")
    expect(cells.locator(".tag")).to_have_text(["pinned", "@prod"])
    expect(cells.locator("td").nth(2)).to_have_text("1")
    expect(cells.locator("td").nth(3)).to_have_text("31")
    expect(row(page, "translate-de-en@v1")).to_contain_text("other base")


def test_search_sort_and_page_are_in_the_address_and_outlive_a_reload(page: Page) -> None:
    page.goto("#/adapters")
    page.get_by_role("button", name="Active").click()
    page.get_by_role("button", name="Active").click()
    expect(page.locator("tbody tr").first).to_have_attribute("data-reference", "sst2@v2")
    expect(page.locator('th[aria-sort="descending"]')).to_contain_text("Active")
    page.keyboard.press("/")
    page.keyboard.type("sst2")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page).to_have_url(re.compile(r"sort=-active_requests.*query=sst2"))
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.get_by_label("Search adapters")).to_have_value("sst2")
    expect(page.locator("tbody tr").first).to_have_attribute("data-reference", "sst2@v2")


def test_ten_thousand_adapters_are_paged_by_the_server(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    backend.extra = many(10_000)
    page.goto("#/adapters")
    expect(page.get_by_role("status")).to_have_text("1–50 of 10,018")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("status")).to_have_text("51–100 of 10,018")
    page.get_by_label("Search adapters").fill("task-0999")
    expect(page.get_by_role("status")).to_have_text("1–10 of 10")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_arrow_keys_walk_the_rows_and_enter_opens_the_panel(page: Page) -> None:
    page.goto("#/adapters")
    row(page, "boolq@v1").get_by_role("link").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary", name="cola@v1")
    expect(panel).to_be_focused()
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    expect(row(page, "cola@v1").get_by_role("link")).to_be_focused()


def test_panel_shows_metrics_lineage_files_and_configuration(page: Page) -> None:
    panel = open_panel(page, "sst2@v3")
    expect(panel).to_contain_text("0.9415")
    expect(panel.get_by_role("link", name="sst2@v2")).to_be_visible()
    expect(panel).to_contain_text("adapter_model.safetensors")
    panel.get_by_text("Training configuration").click()
    expect(panel.locator("pre")).to_contain_text('"learning_rate": 0.001')
    panel.get_by_role("link", name="sst2@v2").click()
    expect(page.get_by_role("complementary", name="sst2@v2")).to_contain_text("pinned")


def test_failed_adapter_says_why(page: Page) -> None:
    expect(open_panel(page, "legal-clauses@v1")).to_contain_text("sha256 differs")


def test_load_pin_and_unpin_act_at_once(page: Page, backend: ConsoleBackendStandIn) -> None:
    panel = open_panel(page, "sst2@v1")
    panel.get_by_role("button", name="Load").click()
    expect(panel.locator(".state")).to_have_text("slot")
    panel.get_by_role("button", name="Pin", exact=True).click()
    expect(panel.locator(".panel-state")).to_contain_text("pinned")
    expect(row(page, "sst2@v1")).to_contain_text("pinned")
    panel.get_by_role("button", name="Unpin").click()
    expect(panel.locator(".panel-state")).not_to_contain_text("pinned")
    assert backend.asked("POST", "/admin/v1/adapters/sst2@v1/load") == [{"pin": False}]


def test_unload_asks_first_and_cancel_sends_nothing(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    panel = open_panel(page, "cola@v1")
    panel.get_by_role("button", name="Unload").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert backend.asked("POST", "/admin/v1/adapters/cola@v1/unload") == []
    panel.get_by_role("button", name="Unload").click()
    confirm(page, "Unload")
    expect(panel.locator(".state")).to_have_text("stored")


def test_unload_of_an_adapter_in_use_says_so_and_offers_to_wait(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    panel = open_panel(page, "boolq@v1")
    panel.get_by_role("button", name="Unload").click()
    confirm(page, "Unload")
    expect(page.get_by_role("dialog")).to_contain_text("boolq@v1 runs 12 requests. (409)")
    confirm(page, "Unload when idle")
    expect(panel.locator(".state")).to_have_text("stored")
    assert backend.asked("POST", "/admin/v1/adapters/boolq@v1/unload") == [{}, {"force": True}]


def test_alias_moves_to_the_chosen_version_after_a_question(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    panel = open_panel(page, "sst2@v3")
    alias = panel.locator('[data-alias="prod"]')
    alias.get_by_label("Version of prod").select_option("v3")
    alias.get_by_role("button", name="Move").click()
    expect(page.get_by_role("dialog")).to_contain_text("get v3 instead of v2")
    confirm(page, "Move to v3")
    expect(panel.locator(".panel-state")).to_contain_text("@prod")
    assert backend.store.aliases("sst2")["prod"] == "v3"


def test_alias_is_added_and_deleted(page: Page, backend: ConsoleBackendStandIn) -> None:
    panel = open_panel(page, "sst2@v1")
    panel.get_by_label("New alias", exact=True).fill("no spaces")
    panel.get_by_role("button", name="Add").click()
    expect(panel).to_contain_text("An alias has letters")
    panel.get_by_label("New alias", exact=True).fill("canary")
    panel.get_by_label("Version of the new alias").select_option("v1")
    panel.get_by_role("button", name="Add").click()
    confirm(page, "Move to v1")
    expect(panel.locator('[data-alias="canary"]')).to_be_visible()
    assert backend.store.aliases("sst2")["canary"] == "v1"
    panel.get_by_role("button", name="Delete canary").click()
    confirm(page, "Delete alias")
    expect(panel.locator('[data-alias="canary"]')).to_have_count(0)


def test_split_is_checked_saved_shown_and_ended(page: Page, backend: ConsoleBackendStandIn) -> None:
    panel = open_panel(page, "sst2@v3")
    alias = panel.locator('[data-alias="prod"]')
    alias.get_by_role("button", name="Split…").click()
    shares = alias.get_by_label("Percent of requests")
    shares.nth(0).fill("90")
    alias.get_by_role("button", name="Save split").click()
    expect(alias).to_contain_text("The shares add up to 90 %, not 100 %.")
    shares.nth(1).fill("10")
    alias.get_by_role("button", name="Save split").click()
    confirm(page, "Split requests")
    expect(alias).to_contain_text("Split: v2 90 %, v3 10 %")
    expect(panel.locator(".panel-state")).to_contain_text("@prod 10 %")
    assert backend.store.splits("sst2")["prod"] == pytest.approx({"v2": 0.9, "v3": 0.1})
    alias.get_by_role("button", name="Split…").click()
    alias.get_by_role("button", name="End split").click()
    confirm(page, "End split")
    expect(alias.get_by_text("Split: ")).to_have_count(0)
    assert backend.store.splits("sst2") == {}


def test_error_of_an_action_stands_beside_its_buttons(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    panel = open_panel(page, "sst2@v1")
    backend.failures = {"/load": 500}
    panel.get_by_role("button", name="Load").click()
    expect(panel.get_by_role("alert")).to_have_text("made to fail: /load (500)")


@pytest.mark.slow
def test_failing_list_is_told_and_recovers_by_itself(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    backend.failures = {"/admin/v1/adapters": 500}
    page.goto("#/adapters")
    expect(page.get_by_role("alert")).to_contain_text("made to fail")
    backend.failures = {}
    expect(page.locator("tbody tr").first).to_be_visible()
    expect(page.locator(".list .message")).to_be_hidden()


@pytest.mark.slow
def test_server_away_is_told_and_the_last_rows_stay(page: Page) -> None:
    page.goto("#/adapters")
    expect(page.locator("tbody tr")).to_have_count(18)
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(page.locator("tbody tr")).to_have_count(18)
    page.context.set_offline(False)
    expect(page.locator(".list .message")).to_be_hidden()


def test_unknown_adapter_in_the_address_is_told(page: Page) -> None:
    page.goto("#/adapters/nothing@v1")
    panel = page.get_by_role("complementary", name="nothing@v1")
    expect(panel.get_by_role("alert")).to_contain_text("(404)")


def test_text_of_the_server_never_becomes_markup(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    attack = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    backend.states["sst2@v3"] = {"state": "failed", "error": attack}
    backend.details["sst2@v3"] = {
        "metrics": {attack: attack, "nested": {attack: [attack]}},
        "training_config": {attack: attack},
        "parent": attack,
        "files": {attack: {"bytes": 1, "sha256": attack}},
    }
    hostile = many(1)[0] | {"reference": attack, "name": attack, "aliases": [attack]}
    backend.extra = [hostile]
    panel = open_panel(page, "sst2@v3")
    expect(panel).to_contain_text(attack)
    expect(page.locator("tbody")).to_contain_text(attack)
    expect(page.locator("main img, main script")).to_have_count(0)
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("hash_", ["#/adapters", "#/adapters/sst2@v3", "#/live", "#/playground"])
def test_phone_shows_every_page_without_scrolling_sideways(page: Page, hash_: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(hash_)
    expect(page.locator(".tile, .composer, .panel .facts").first).to_be_visible()
    expect(page.locator("main [role=alert]:visible")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("hash_", ["#/adapters/sst2@v3", "#/live", "#/playground"])
def test_every_control_has_a_name(page: Page, hash_: str) -> None:
    page.goto(hash_)
    expect(page.locator(".tile, .composer").first).to_be_visible()
    snapshot = page.locator("body").aria_snapshot()
    controls = re.findall(r"- (?:button|textbox|searchbox|combobox|spinbutton|link)\b.*", snapshot)
    assert controls
    assert all('"' in control for control in controls), controls
