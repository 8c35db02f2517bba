"""Every alert of server and trainer is fired by a real fault, and every dashboard has data.

The tests share what they watch and run in this order; time is shortened by one factor.
"""

import contextlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from cluster.monitoring.panels.catalogue import DASHBOARDS
from cluster.monitoring.panels.model import Dashboard
from tests.cluster.monitoring.live_stack import (
    ADAPTERS,
    DAMAGED,
    SPLIT,
    WAIT_SECONDS,
    Stack,
    running_stack,
)
from tests.cluster.monitoring.promtool import alert_rules
from tests.serving.live_server import engine_processes, traffic, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed"
    ),
]

ROLES = ("server", "gateway", "replica", "trainer", "queue", "ray")
VARIABLES = {
    "$__rate_interval": "15s",
    "$role": "server",
    "$instance": ".*",
    "$run": ".*",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("live")) as stack:
        yield stack


def test_prometheus_finds_every_kind_of_target_and_is_silent(stack: Stack) -> None:
    for role in ROLES:
        wait_for(lambda role=role: bool(stack.query(f'up{{role="{role}"}} == 1')), WAIT_SECONDS)
    firing = [alert["labels"] for alert in stack.alerts()]
    assert [labels for labels in firing if labels["component"] != "training"] == []
    for model in (*ADAPTERS, "base", "a:0.5+b:0.5", f"{SPLIT}@both"):
        assert stack.server.complete(model, "the film", 4).status_code == 200


def test_more_adapters_and_requests_than_fit_are_noticed(stack: Stack) -> None:
    adapters = itertools.cycle(ADAPTERS)

    def ask_base() -> None:
        stack.server.complete("base", "the film", 64)

    def ask_adapter() -> None:
        stack.server.complete(next(adapters), "the film", 4)

    with traffic(ask_base, threads=40), traffic(ask_adapter, threads=1):
        assert stack.server.complete(DAMAGED, "the film", 1).status_code >= 400
        stack.wait_for_alerts(
            "PropulsionAdapterLoadFailures",
            "PropulsionTimeToFirstTokenHigh",
            "PropulsionRequestQueueGrowing",
            "PropulsionSlotThrash",
            "PropulsionHostCacheThrash",
        )


def test_a_learning_rate_that_is_too_high_is_noticed(stack: Stack) -> None:
    stack.wait_for_alerts("PropulsionLossNotFinite", adapter="wild")
    stack.wait_for_alerts("PropulsionLossDiverging", adapter="rising")
    assert not stack.is_firing("PropulsionLossDiverging", adapter="calm")
    assert not stack.is_firing("PropulsionLossNotFinite", adapter="calm")
    assert not stack.is_firing("PropulsionTrainerDown")


@pytest.fixture(scope="module")
def stopped_trainer(stack: Stack) -> None:
    stack.trainer.send_signal(signal.SIGSTOP)


@pytest.mark.usefixtures("stopped_trainer")
def test_an_engine_that_is_killed_is_noticed(stack: Stack) -> None:
    def ask() -> None:
        with contextlib.suppress(httpx.TransportError):
            stack.server.complete("a", "the film", 4)
        time.sleep(0.2)

    with traffic(ask):
        for process in engine_processes(stack.server):
            os.kill(process, signal.SIGKILL)
        stack.wait_for_alerts(
            "PropulsionEngineDown", "PropulsionServerErrors", "PropulsionEngineRestarted"
        )
        stack.wait_until_silent("PropulsionEngineDown", "PropulsionServerErrors")


@pytest.mark.usefixtures("stopped_trainer")
def test_a_trainer_that_hangs_is_noticed_and_so_is_that_it_goes_on(stack: Stack) -> None:
    stack.wait_for_alerts("PropulsionTrainingStalled", "PropulsionTrainerDown", run="live")
    stack.trainer.send_signal(signal.SIGCONT)
    stack.wait_until_silent("PropulsionTrainingStalled", "PropulsionTrainerDown")


def test_a_trainer_that_is_killed_is_noticed(stack: Stack) -> None:
    stack.trainer.kill()
    stack.wait_for_alerts("PropulsionTrainerDown", run="live")


def test_a_server_that_is_gone_is_noticed(stack: Stack) -> None:
    stack.server.stop()
    stack.wait_for_alerts("PropulsionServerDown", "PropulsionReplicaUnreachable")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_every_query_of_a_dashboard_had_data(stack: Stack, dashboard: Dashboard) -> None:
    panels = [panel for row in dashboard.rows for panel in row.panels if not panel.requires]
    empty = [
        (panel.title, query.expr)
        for panel in panels
        for query in panel.queries
        if not stack.history(with_values(query.expr))
    ]
    assert not empty


def test_every_alert_of_server_and_trainer_was_fired_by_a_fault(stack: Stack) -> None:
    fired = {s["metric"]["alertname"] for s in stack.history('ALERTS{alertstate="firing"}')}
    components = ("serving", "training")
    rules = [rule for rule in alert_rules() if rule["labels"]["component"] in components]
    assert {rule["alert"] for rule in rules} <= fired
    for alert in stack.alerts():
        assert "error" not in alert["annotations"]["summary"]


def with_values(expression: str) -> str:
    """A dashboard's query as Grafana would ask it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression
