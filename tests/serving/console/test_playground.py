"""The playground in Chromium: streaming, side by side, differences, stop."""

import pytest
from playwright.sync_api import Page, expect

from tests.serving.console.backend import BASE, INFERENCE_KEY, ConsoleBackendStandIn


def add(page: Page, *models: str) -> None:
    for model in models:
        page.get_by_label("Models", exact=True).fill(model)
        page.get_by_role("button", name="Add").click()


def send(page: Page, prompt: str = "Why is the sky blue?") -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Send").click()


def answer(page: Page, model: str):
    return page.locator(f'article[data-model="{model}"]')


@pytest.fixture(autouse=True)
def opened(page: Page) -> None:
    page.goto("#/playground")
    expect(page.locator(".chip")).to_contain_text([BASE])


def test_one_prompt_goes_to_base_adapters_and_blend_side_by_side(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    blend = "sst2:0.7+boolq:0.3"
    add(page, "sst2@prod", blend)
    page.get_by_label("Max tokens").fill("17")
    page.get_by_label("Temperature").fill("0.5")
    send(page)
    for model in (BASE, "sst2@prod", blend):
        expect(answer(page, model)).to_contain_text(f"An answer of {model} to: Why is the sky")
        expect(answer(page, model)).to_have_attribute("data-state", "done")
    expect(page.get_by_role("status")).to_have_text("3 of 3 answers complete")
    expect(answer(page, "sst2@prod")).to_contain_text("answered by sst2@v2")
    expect(answer(page, blend)).to_contain_text("answered by sst2@v3:0.7+boolq@v1:0.3")
    bodies = backend.asked("POST", "/v1/completions")
    assert [body["model"] for body in bodies] == [BASE, "sst2@prod", blend]
    assert {(body["max_tokens"], body["temperature"], body["stream"]) for body in bodies} == {
        (17, 0.5, True)
    }


def test_answers_run_at_the_same_time_and_stop_aborts_them(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    backend.hold = True
    add(page, "sst2", "boolq")
    send(page)
    for model in (BASE, "sst2", "boolq"):
        expect(answer(page, model)).to_have_attribute("data-state", "streaming")
        expect(answer(page, model).locator(".answer-text")).to_have_text("An")
    assert backend.streams == dict.fromkeys((BASE, "sst2", "boolq"), "open")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    for model in (BASE, "sst2", "boolq"):
        expect(answer(page, model)).to_have_attribute("data-state", "stopped")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    assert wait_for_streams(page, backend) == {"aborted"}


def test_leaving_the_page_aborts_the_answers(page: Page, backend: ConsoleBackendStandIn) -> None:
    backend.hold = True
    send(page)
    expect(answer(page, BASE)).to_have_attribute("data-state", "streaming")
    page.get_by_role("link", name="Live").click()
    assert wait_for_streams(page, backend) == {"aborted"}


def wait_for_streams(page: Page, backend: ConsoleBackendStandIn) -> set[str]:
    """How the streams ended; the server learns a little later that the browser is gone."""
    for _ in range(200):
        if "open" not in backend.streams.values():
            break
        page.wait_for_timeout(20)
    return set(backend.streams.values())


def test_speed_first_token_and_count_are_shown(page: Page, backend: ConsoleBackendStandIn) -> None:
    backend.word_seconds = 0.01
    send(page)
    stats = answer(page, BASE).locator("dl")
    expect(answer(page, BASE)).to_have_attribute("data-state", "done")
    titles, values = (stats.locator(tag).all_inner_texts() for tag in ("dt", "dd"))
    shown = dict(zip(titles, values, strict=True))
    assert shown["tokens"] == "10"
    assert shown["first token"].endswith((" ms", " s"))
    assert float(shown["tokens/s"]) > 0


def test_words_that_differ_from_the_chosen_answer_are_marked(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    backend.answers = {
        BASE: "The film is good and long.",
        "sst2": "The film is bad and very long.",
        "boolq": "The film is good and long.",
    }
    add(page, "sst2", "boolq")
    send(page)
    marks = answer(page, "sst2").locator("mark")
    expect(marks).to_have_text(["bad", "very"])
    expect(answer(page, "sst2").locator(".answer-text")).to_have_text(backend.answers["sst2"])
    expect(answer(page, "boolq")).to_contain_text("the same answer")
    page.get_by_label("Compare with").select_option("sst2")
    expect(answer(page, BASE).locator("mark")).to_have_text(["good"])
    expect(marks).to_have_count(0)
    page.get_by_label("Mark what differs from").uncheck()
    expect(page.locator("mark")).to_have_count(0)


def test_chat_sends_a_message(page: Page, backend: ConsoleBackendStandIn) -> None:
    page.get_by_text("chat", exact=True).click()
    send(page, "Hello")
    expect(answer(page, BASE)).to_contain_text(f"An answer of {BASE} to: Hello")
    (body,) = backend.asked("POST", "/v1/chat/completions")
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_one_failing_model_leaves_the_others_alone(page: Page) -> None:
    add(page, "unknown-adapter")
    send(page)
    expect(answer(page, "unknown-adapter")).to_have_attribute("data-state", "failed")
    expect(answer(page, "unknown-adapter")).to_contain_text("(404)")
    expect(answer(page, BASE)).to_have_attribute("data-state", "done")


def test_server_away_fails_the_answer_with_the_reason(page: Page) -> None:
    page.context.set_offline(True)
    send(page)
    expect(answer(page, BASE)).to_contain_text("The server cannot be reached.")


def test_answers_never_become_markup(page: Page, backend: ConsoleBackendStandIn) -> None:
    attack = "<img src=x onerror='window.hacked=1'> <b>bold</b>"
    backend.answers = {BASE: attack, "sst2": f"{attack} more"}
    add(page, "sst2")
    send(page)
    expect(answer(page, "sst2").locator(".answer-text")).to_have_text(f"{attack} more")
    expect(answer(page, "sst2").locator("mark")).to_have_text(["more"])
    expect(page.locator(".answers img, .answers b")).to_have_count(0)
    assert page.evaluate("window.hacked") is None


def test_wrong_settings_are_told_and_nothing_is_sent(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    send(page, " ")
    expect(page.get_by_role("status")).to_have_text("Write a prompt first.")
    page.get_by_label("Max tokens").fill("0")
    send(page)
    expect(page.get_by_role("status")).to_have_text("Max tokens is a whole number from 1.")
    page.get_by_role("button", name=f"Remove {BASE}").click()
    send(page)
    expect(page.get_by_role("status")).to_have_text("Choose at least one model.")
    assert backend.asked("POST", "/v1/completions") == []


def test_at_most_as_many_models_as_the_browser_has_connections(page: Page) -> None:
    add(page, *(f"model-{number}" for number in range(6)))
    expect(page.locator(".chip")).to_have_count(6)
    expect(page.get_by_role("alert")).to_contain_text("At most 6 at once")


def test_prompt_and_models_outlive_a_look_at_another_page(page: Page) -> None:
    add(page, "sst2")
    page.get_by_label("Prompt", exact=True).fill("A prompt worth keeping")
    page.get_by_role("link", name="Live").click()
    page.get_by_role("link", name="Playground").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("A prompt worth keeping")
    expect(page.locator(".chip .reference")).to_have_text([BASE, "sst2"])


def test_adapters_are_suggested_to_admins_and_to_inference_keys(
    page: Page, backend: ConsoleBackendStandIn
) -> None:
    options = page.locator("datalist option")
    page.get_by_label("Models", exact=True).fill("boolq:0.5+squad")
    expect(options).to_have_count(1)
    expect(options).to_have_attribute("value", "boolq:0.5+squad-answers@v1")
    backend.keys = {INFERENCE_KEY: "inference"}
    page.evaluate(f"sessionStorage.setItem('propulsion.key', '{INFERENCE_KEY}')")
    page.reload()
    expect(page.locator(".chip")).to_contain_text([BASE])
    page.get_by_label("Models", exact=True).fill("squad")
    expect(options).to_have_count(2)
    expect(options.nth(1)).to_have_attribute("value", "squad-answers@v1")


def test_panel_of_an_adapter_leads_here(page: Page) -> None:
    page.goto("#/adapters/sst2@v3")
    page.get_by_role("link", name="Try in the playground").click()
    expect(page.locator(".chip .reference")).to_have_text([BASE, "sst2@v3"])
