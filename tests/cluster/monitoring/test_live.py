"""Every alert of server and trainer is fired by a real fault, and their dashboards have data.

The tests share what they watch and run in this order; time is shortened by one factor.
"""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster.monitoring.live_stack import ADAPTERS, DAMAGED, SPLIT, Stack, running_stack
from tests.cluster.watching import WAIT_SECONDS, alerts_of, is_of_neither, needs_prometheus
from tests.serving.live_server import engine_processes, traffic, wait_for

pytestmark = [pytest.mark.slow, needs_prometheus]

ROLES = ("server", "trainer", "ray")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("live")) as stack:
        yield stack


def test_prometheus_finds_every_kind_of_target_and_is_silent(stack: Stack) -> None:
    for role in ROLES:
        wait_for(
            lambda role=role: bool(stack.prometheus.query(f'up{{role="{role}"}} == 1')),
            WAIT_SECONDS,
        )
    firing = [alert["labels"] for alert in stack.prometheus.alerts()]
    assert [labels for labels in firing if labels["component"] != "training"] == []
    for model in (*ADAPTERS, "base", "a:0.5+b:0.5", f"{SPLIT}@both"):
        assert stack.server.complete(model, "the film", 4).status_code == 200


def test_more_adapters_than_fit_and_a_damaged_one_are_noticed(stack: Stack) -> None:
    adapters = itertools.cycle(ADAPTERS)
    assert stack.server.complete(DAMAGED, "the film", 1).status_code >= 400
    with traffic(lambda: stack.server.complete(next(adapters), "the film", 4), threads=1):
        stack.prometheus.wait_for_alerts(
            "PropulsionAdapterLoadFailures", "PropulsionSlotThrash", "PropulsionHostCacheThrash"
        )


def test_more_requests_than_the_engine_can_answer_are_noticed(stack: Stack) -> None:
    with traffic(lambda: stack.server.complete("base", "the film", 64), threads=40):
        stack.prometheus.wait_for_alerts(
            "PropulsionTimeToFirstTokenHigh", "PropulsionRequestQueueGrowing"
        )


def test_a_learning_rate_that_is_too_high_is_noticed(stack: Stack) -> None:
    stack.prometheus.wait_for_alerts("PropulsionLossNotFinite", adapter="wild")
    stack.prometheus.wait_for_alerts("PropulsionLossDiverging", adapter="rising")
    assert not stack.prometheus.is_firing("PropulsionLossDiverging", adapter="calm")
    assert not stack.prometheus.is_firing("PropulsionLossNotFinite", adapter="calm")
    assert not stack.prometheus.is_firing("PropulsionTrainerDown")


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
        stack.prometheus.wait_for_alerts(
            "PropulsionEngineDown", "PropulsionServerErrors", "PropulsionEngineRestarted"
        )
        stack.prometheus.wait_until_silent("PropulsionEngineDown", "PropulsionServerErrors")


@pytest.mark.usefixtures("stopped_trainer")
def test_a_trainer_that_hangs_is_noticed_and_so_is_that_it_goes_on(stack: Stack) -> None:
    stack.prometheus.wait_for_alerts(
        "PropulsionTrainingStalled", "PropulsionTrainerDown", run="live"
    )
    stack.trainer.send_signal(signal.SIGCONT)
    stack.prometheus.wait_until_silent("PropulsionTrainingStalled", "PropulsionTrainerDown")


def test_a_trainer_that_is_killed_is_noticed(stack: Stack) -> None:
    stack.trainer.kill()
    stack.prometheus.wait_for_alerts("PropulsionTrainerDown", run="live")


def test_a_server_that_is_gone_is_noticed(stack: Stack) -> None:
    stack.server.stop()
    stack.prometheus.wait_for_alerts("PropulsionServerDown")


def test_every_query_about_server_trainer_and_ray_had_data(stack: Stack) -> None:
    assert not stack.prometheus.without_data(is_of_neither)


def test_every_alert_of_server_and_trainer_was_fired_by_a_fault(stack: Stack) -> None:
    assert alerts_of("serving", "training") <= stack.prometheus.seen
    for alert in stack.prometheus.alerts():
        assert "error" not in alert["annotations"]["summary"]
