"""The live page in Chromium, and its reading of Prometheus's format."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.serving.console.backend import ConsoleBackendStandIn

CHARTS = [
    "Generated tokens tokens/s",
    "Requests ended requests/s",
    "Time to first token ms",
    "Inter-token latency ms",
    "Slots of the bank slots",
    "Requests in the engine requests",
]


def in_module(page: Page, module: str, code: str, argument: Any = None) -> Any:
    """What JavaScript code gives that sees a module of the console as `m` and an `argument`."""
    page.goto("#/playground")
    script = f"async (argument) => {{ const m = await import('./{module}'); {code} }}"
    return page.evaluate(script, argument)


def test_charts_show_the_server_s_own_metrics(page: Page) -> None:
    page.goto("#/live")
    legend = page.get_by_role("figure", name=CHARTS[0]).locator(".legend")
    for name in ("all", "sst2", "boolq", "summarise-news"):
        expect(legend.get_by_text(name, exact=True)).to_be_visible()
    for chart in CHARTS:
        figure = page.get_by_role("figure", name=chart)
        expect(figure.locator("path.line").first).to_be_attached()
        expect(figure.locator(".tick text").first).to_have_text("0")
    tiles = page.locator(".tiles")
    expect(tiles).to_contain_text(re.compile(r"Slots used1,\d{3}of 2,000, 37 pinned"))
    expect(tiles).to_contain_text(re.compile(r"Time to first token[\d.]+ msp95; p50 [\d.]+ ms"))
    expect(tiles).to_contain_text(re.compile(r"\d+ waiting\d+ running"))


def test_one_adapter_can_be_looked_at_alone(page: Page) -> None:
    page.goto("#/live")
    page.get_by_label("Adapter").select_option("boolq")
    labels = page.get_by_role("figure", name=CHARTS[0]).locator(".legend .label")
    expect(labels).to_have_text(["boolq"])


def test_values_show_under_the_pointer_and_by_arrow_keys(page: Page) -> None:
    page.goto("#/live")
    figure = page.get_by_role("figure", name=CHARTS[4])
    expect(figure.locator("path.line").first).to_be_attached()
    plot = figure.locator("svg.plot")
    plot.hover()
    expect(figure.locator(".tip")).to_contain_text(
        re.compile(r"\d\d:\d\d:\d\d.*used 1,\d{3} slots")
    )
    page.mouse.move(0, 0)
    expect(figure.locator(".tip")).to_be_hidden()
    plot.focus()
    page.keyboard.press("ArrowLeft")
    expect(figure.locator(".tip")).to_contain_text("total 2,000 slots")


@pytest.mark.slow
def test_failing_metrics_are_told(page: Page, backend: ConsoleBackendStandIn) -> None:
    backend.failures = {"/metrics": 403}
    page.goto("#/live")
    expect(page.get_by_role("alert")).to_contain_text("/metrics is for admins")
    backend.failures = {}
    expect(page.locator("path.line").first).to_be_attached()
    expect(page.locator(".live-page > .message")).to_be_hidden()


def test_labels_with_quotes_backslashes_and_braces_are_read(page: Page) -> None:
    text = (
        "# HELP x no\n"
        r'x{adapter="a\"b\\c\nd}, e=\"f",le="+Inf"} +Inf'
        "\nx 3 1700000000000\ny{} 1\nx_total 5\n"
    )
    found = in_module(
        page,
        "live/prometheus.js",
        "return [...m.samples(argument, new Set(['x']))].map((s) => [s.labels, String(s.value)]);",
        text,
    )
    assert found == [[{"adapter": 'a"b\\c\nd}, e="f', "le": "+Inf"}, "Infinity"], [{}, "3"]]


def test_quantiles_are_those_of_prometheus(page: Page) -> None:
    cases = [
        (0.5, {"1": 0, "2": 10, "Infinity": 10}, 1.5),
        (0.95, {"1": 100, "2": 100, "Infinity": 100}, 0.95),
        (0.95, {"1": 5, "2": 5, "Infinity": 10}, 2),
        (0.5, {"1": 0, "Infinity": 0}, None),
    ]
    code = """
        const numbers = (counts) => new Map(Object.entries(counts).map(([b, n]) => [Number(b), n]));
        return argument.map(([q, counts]) => m.quantile(q, numbers(counts)));
    """
    found = in_module(page, "live/prometheus.js", code, [case[:2] for case in cases])
    assert found == [pytest.approx(expected) for _, _, expected in cases]


def test_rates_survive_a_restart_of_the_server_and_stop_at_a_gap(page: Page) -> None:
    code = """
        const name = "propulsion_serve_generated_tokens_total";
        const text = (tokens) => `${name}{adapter="a"} ${tokens}\\n`;
        const scrapes = argument.map(([time, tokens]) => m.readScrape(text(tokens), time * 1000));
        return m.points(scrapes, "").map((p) => (p.missing ? null : p.tokens.get("a")));
    """
    scrapes = [[0, 100], [2, 140], [4, 10], [60, 20], [62, 24]]
    assert in_module(page, "live/history.js", code, scrapes) == [20, 5, None, 2]


def test_axes_have_few_round_ticks_that_hold_the_highest_value(page: Page) -> None:
    highest = [0, 0.003, 1, 7, 99, 1234, 2000]
    code = "return argument.map(m.valueTicks);"
    for value, ticks in zip(highest, in_module(page, "live/scale.js", code, highest), strict=True):
        assert ticks[0] == 0
        assert ticks[-1] >= value
        assert 3 <= len(ticks) <= 6
