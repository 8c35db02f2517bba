"""Every alert about a queue is fired by a real fault, and its dashboard has data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.training.dispatcher_process import DispatcherProcess
from tests.cluster.training.ray_cluster import RayCluster, propulsion
from tests.cluster.watching import (
    QUEUE_ALERTS,
    Prometheus,
    is_of_queue,
    needs_prometheus,
    watching,
)
from tests.trainer.runs import write_run

pytestmark = [pytest.mark.slow, pytest.mark.nightly, needs_prometheus]


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queue")


@pytest.fixture(scope="module")
def prometheus(
    queue: Path, cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("watching")
    dispatcher = DispatcherProcess(queue, cluster.address, folder / "dispatcher.log")
    address = f"127.0.0.1:{dispatcher.metrics_port}"
    try:
        with watching(folder, queue=address) as prometheus:
            yield prometheus
    finally:
        dispatcher.kill()


def test_a_run_that_is_larger_than_the_cluster_is_noticed(
    base: Path, queue: Path, prometheus: Prometheus, tmp_path: Path
) -> None:
    run = write_run(tmp_path, base, name="huge", cluster={"cpus_per_worker": 64})
    name = propulsion("cluster", "submit", str(run), "--queue", str(queue)).strip()
    prometheus.wait_for_alerts("PropulsionRunQueueStuck")
    propulsion("cluster", "cancel", name, "--queue", str(queue))
    prometheus.wait_until_silent("PropulsionRunQueueStuck")


def test_a_run_that_fails_is_noticed(
    base: Path, queue: Path, prometheus: Prometheus, tmp_path: Path
) -> None:
    run = write_run(tmp_path, base, name="broken")
    propulsion("cluster", "submit", str(run), "--queue", str(queue))
    (tmp_path / "train.tsv").unlink()
    prometheus.wait_for_alerts("PropulsionRunsFailing", team="default")


def test_every_query_about_a_queue_had_data(prometheus: Prometheus) -> None:
    assert not prometheus.without_data(is_of_queue)


def test_every_alert_about_a_queue_was_fired_by_a_fault(prometheus: Prometheus) -> None:
    assert prometheus.seen >= QUEUE_ALERTS
