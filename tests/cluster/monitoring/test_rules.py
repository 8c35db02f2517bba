"""The rules are valid, every alert fires for its fault and for nothing else, and has a runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring.time_scale import scale_duration, scale_expression, scale_rules
from tests.cluster.monitoring.promtool import (
    RULES,
    alert_rules,
    needs_promtool,
    promtool,
)
from tests.cluster.monitoring.rule_cases import CASES, Series

PAGE = Path(__file__).parents[3] / "docs" / "cluster" / "monitoring.md"


@needs_promtool
def test_the_rules_are_valid() -> None:
    promtool("check", "rules", *RULES)


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {rule["alert"] for rule in alert_rules()}


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_for_its_fault_and_for_nothing_else(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    times = {case.at: True}
    if case.not_yet is not None:
        times[case.not_yet] = False
    tests = [unit_test("the fault", alert, case.fires, times)]
    for number, series in enumerate(case.silent):
        tests.append(unit_test(f"silent {number}", alert, series, {case.at: False}))
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(rules) for rules in RULES],
                "evaluation_interval": "15s",
                "tests": tests,
            }
        )
    )
    promtool("test", "rules", path)


def test_every_alert_that_waits_is_seen_to_wait() -> None:
    for rule in alert_rules():
        if "for" in rule:
            assert CASES[rule["alert"]].not_yet is not None, rule["alert"]


def test_every_alert_tells_what_where_and_what_to_do() -> None:
    headings = set(re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE))
    for rule in alert_rules():
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert "{{ $" in notes["summary"], rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["labels"]["component"] in ("serving", "training", "cluster")
        assert notes["runbook_url"] == f"cluster/monitoring/#{rule['alert'].lower()}"
        assert rule["alert"] in headings


def test_a_time_scale_changes_durations_alone() -> None:
    for path in RULES:
        rules = yaml.safe_load(path.read_text())
        scaled = scale_rules(rules, 0.5)
        assert without_durations(scaled) == without_durations(rules)
        assert scaled != rules


def test_durations_are_found_wherever_promql_has_them() -> None:
    expression = 'rate(a[5m]) > max_over_time(b{c="5m"}[1h30m:30s] offset 2d) + 5'
    assert scale_expression(expression, 0.01) == (
        'rate(a[3000ms]) > max_over_time(b{c="5m"}[54000ms:300ms] offset 1728000ms) + 5'
    )
    assert scale_duration("1ms", 0.001) == "1ms"


@needs_promtool
def test_scaled_rules_are_valid(tmp_path: Path) -> None:
    for path in RULES:
        scaled = tmp_path / path.name
        scaled.write_text(yaml.safe_dump(scale_rules(yaml.safe_load(path.read_text()), 0.02)))
        promtool("check", "rules", scaled)


def unit_test(name: str, alert: str, series: Series, times: dict[int, bool]) -> dict[str, Any]:
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
            for minutes, fires in times.items()
        ],
    }


def without_durations(rules: dict[str, Any]) -> str:
    return re.sub(r"\b\d+(ms|[smhd])\b", "DURATION", yaml.safe_dump(rules, width=10_000))
