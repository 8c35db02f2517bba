"""Every alert about a gateway is fired by a real fault, and its dashboard has data.

The tests share what they watch and run in this order; time is shortened by one factor.
"""

import itertools
import time
from collections.abc import Iterator

import pytest

from benchmarks.cluster.load import Load
from tests.cluster.serving.conftest import ADAPTERS, Live
from tests.cluster.watching import (
    QUEUE_ALERTS,
    WAIT_SECONDS,
    Prometheus,
    alerts_of,
    is_of_gateway,
    needs_prometheus,
    watching,
)
from tests.serving.live_server import traffic, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.nightly, needs_prometheus]

# A gateway on a busy machine has a second and a half for each answer to Prometheus.
TIME_SCALE = 1 / 10
WINDOW_SECONDS = 5 * 60 * TIME_SCALE
# As many again as the two replicas hold in host memory.
MANY = [f"many-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def prometheus(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    live.deploy()
    live.nodes.wait_for_replicas(2)
    folder = tmp_path_factory.mktemp("watching")
    key = folder / "key"
    key.write_text(live.keys["admin"])
    address = live.nodes.url.removeprefix("http://")
    options = {"gateway": address, "credentials_file": key, "time_scale": TIME_SCALE}
    with watching(folder, **options) as prometheus:
        yield prometheus


def test_gateway_and_replicas_are_found_and_nothing_fires(
    live: Live, prometheus: Prometheus
) -> None:
    for role, number in (("gateway", 1), ("replica", 2)):
        query = f'count(up{{role="{role}"}} == 1) == {number}'
        wait_for(lambda query=query: bool(prometheus.query(query)), WAIT_SECONDS)
    for name in ADAPTERS:
        assert live.complete(name, "x").status_code == 200
    assert not prometheus.alerts()


def test_more_adapters_than_the_replicas_hold_are_noticed(
    live: Live, prometheus: Prometheus, adapter_folders
) -> None:
    for name in MANY:
        live.store.publish(adapter_folders["key-3"], name)
    names = itertools.cycle(MANY)

    def ask() -> None:
        live.complete(next(names), "x", max_tokens=2)
        time.sleep(0.2)

    with traffic(ask, threads=1):
        prometheus.wait_for_alerts("PropulsionAffinityLow")


def test_replicas_that_fail_one_after_the_other_are_noticed(
    live: Live, prometheus: Prometheus
) -> None:
    # Answers so long that many are under way whenever an engine dies.
    headers = {"Authorization": f"Bearer {live.keys['admin']}"}
    options = {"clients": 6, "max_tokens": 200, "headers": headers}
    with Load(live.nodes.url, itertools.cycle(ADAPTERS), **options):
        # Until the rates are of these requests alone.
        time.sleep(WINDOW_SECONDS)
        live.nodes.kill_engine()
        # So that the second loss joins the first one in one window.
        time.sleep(WINDOW_SECONDS * 2 / 3)
        live.nodes.kill_engine()
        prometheus.wait_for_alerts(
            "PropulsionGatewayFailures", "PropulsionGatewayRetries", "PropulsionNoReplicas"
        )
        live.nodes.wait_for_replicas(2)
    prometheus.wait_until_silent("PropulsionNoReplicas")


def test_a_replica_that_hangs_is_noticed(live: Live, prometheus: Prometheus) -> None:
    with live.nodes.hanging("Replica"):
        prometheus.wait_for_alerts("PropulsionReplicaUnreachable")
    prometheus.wait_until_silent("PropulsionReplicaUnreachable")


def test_a_gateway_that_hangs_is_noticed(live: Live, prometheus: Prometheus) -> None:
    with live.nodes.hanging("Gateway"):
        prometheus.wait_for_alerts("PropulsionGatewayDown")
    prometheus.wait_until_silent("PropulsionGatewayDown")


def test_replicas_that_find_no_room_are_noticed(live: Live, prometheus: Prometheus) -> None:
    live.deploy(min_replicas=4, wait=False)
    prometheus.wait_for_alerts("PropulsionReplicasMissing")
    live.deploy()
    live.nodes.wait_for_replicas(2)


def test_every_query_about_gateway_and_replicas_had_data(prometheus: Prometheus) -> None:
    assert not prometheus.without_data(is_of_gateway)


def test_every_alert_about_gateway_and_replicas_was_fired_by_a_fault(
    prometheus: Prometheus,
) -> None:
    assert alerts_of("cluster") - QUEUE_ALERTS <= prometheus.seen
