"""Runs that go to Ray at once: on two nodes, over the loss of one, and with mistakes in them."""

import os
import signal
import time
from pathlib import Path

import pytest

from adapters import AdapterStore
from cluster.training.ray_jobs import RayJobs
from tests.cluster.training.ray_cluster import (
    RayCluster,
    propulsion,
    rank_pids,
    start_propulsion,
    wait_until,
)
from tests.trainer.runs import assert_same_weights, free_port, train_all, write_run
from trainer.checkpoint import latest_checkpoint
from trainer.result import read_result

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

STEPS = 60


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of one process, without Ray."""
    run = write_run(
        tmp_path_factory.mktemp("undisturbed"),
        base,
        training__steps=STEPS,
        checkpoints__every=5,
    )
    train_all(run)
    return run.parent / "out"


def submit_and_wait_for_checkpoint(run: Path, *head: str) -> str:
    run_id = propulsion("cluster", "submit", str(run), *head).strip()
    wait_until(
        lambda: latest_checkpoint(run.parent / "out") is not None,
        lambda: propulsion("cluster", "logs", run_id, *head),
    )
    return run_id


def test_run_on_two_nodes_survives_the_loss_of_one(
    base: Path, cluster: RayCluster, undisturbed: Path, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path,
        base,
        training__steps=STEPS,
        checkpoints__every=5,
        cluster={"workers": [1, 2], "placement": "SPREAD"},
    )
    head = ("--address", cluster.address)
    # A range of workers starts with what is free.
    wait_until(cluster.is_free)
    run_id = submit_and_wait_for_checkpoint(run, *head)
    assert cluster.num_train_workers() == [1, 1]
    cluster.lose_node(1)
    try:
        log = propulsion("cluster", "logs", "--follow", run_id, *head)
    finally:
        cluster.add_node(1)
    assert RayJobs(cluster.address, "python").resources()["CPU"] == 2, "the dead node counts"
    assert "continues from" in log, "the node was lost too late"
    assert_same_weights(tmp_path / "out", undisturbed, 1e-5)
    assert f"{run_id} │ succeeded" in propulsion("cluster", "status", *head)
    version = AdapterStore(tmp_path / "store").resolve(read_result(tmp_path / "out").only.adapter)
    assert version.manifest.training_config["lineage"] == {"run": "tiny", "job": run_id}


def test_run_on_one_node_grows_when_another_one_comes(
    base: Path, cluster: RayCluster, undisturbed: Path, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path,
        base,
        training__steps=STEPS,
        checkpoints__every=5,
        cluster={"workers": [1, 2], "placement": "SPREAD", "resize_seconds": 1},
    )
    head = ("--address", cluster.address)
    wait_until(cluster.is_free)
    cluster.lose_node(1)
    try:
        run_id = submit_and_wait_for_checkpoint(run, *head)
        # Its few steps would be over before there is a node.
        (rank,) = rank_pids()
        os.kill(rank, signal.SIGSTOP)
    finally:
        cluster.add_node(1)
    # Time for the run to look for more room.
    time.sleep(5)
    os.kill(rank, signal.SIGCONT)
    wait_until(lambda: cluster.num_train_workers() == [1, 1])
    log = propulsion("cluster", "logs", "--follow", run_id, *head)
    assert "continues from" in log
    assert_same_weights(tmp_path / "out", undisturbed, 1e-5)


def test_ctrl_c_ends_the_log_and_not_the_run_which_cancel_ends_once(
    base: Path, cluster: RayCluster, tmp_path: Path
) -> None:
    head = ("--address", cluster.address)
    run = write_run(tmp_path, base, training__steps=10**6)
    run_id = propulsion("cluster", "submit", str(run), *head).strip()
    following = start_propulsion("cluster", "logs", "-f", run_id, *head)
    assert following.stdout is not None
    assert following.stdout.readline()
    following.send_signal(signal.SIGINT)
    rest, _ = following.communicate(timeout=60)
    assert following.returncode == 130
    assert f"{run_id} goes on" in rest
    assert f"{run_id} │ running" in propulsion("cluster", "status", run_id, *head)
    assert "asked to end" in propulsion("cluster", "cancel", run_id, *head)
    wait_until(lambda: "stopped" in propulsion("cluster", "status", run_id, *head))
    assert f"{run_id} is over: stopped" in propulsion("cluster", "cancel", run_id, *head, code=2)


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_unknown_run_is_told(cluster: RayCluster, command: str) -> None:
    told = propulsion("cluster", command, "nobody", "--address", cluster.address, code=2)
    assert "has no job 'nobody'" in told


def test_wrong_input_is_told_at_submission_and_leaves_nothing(
    base: Path, cluster: RayCluster, tmp_path: Path
) -> None:
    run = write_run(tmp_path, base, data__test="missing.tsv")
    told = propulsion("cluster", "submit", str(run), "--address", cluster.address, code=2)
    assert "missing.tsv" in told
    run = write_run(tmp_path, base)
    nowhere = f"http://127.0.0.1:{free_port()}"
    told = propulsion("cluster", "submit", str(run), "--address", nowhere, code=2)
    assert f"no Ray head answers at {nowhere}" in told
    told = propulsion("cluster", "submit", str(run), "--address", "head:6379", code=2)
    assert "give the URL of the Ray dashboard" in told
    assert not (tmp_path / "out").exists()


def test_a_job_that_fails_tells_why(base: Path, cluster: RayCluster, tmp_path: Path) -> None:
    head = ("--address", cluster.address)
    run = write_run(tmp_path, base, cluster={"workers": 3})
    told = propulsion("cluster", "submit", str(run), "--follow", *head, code=2)
    assert "error: 3 workers need as many CPUs, Ray has 0 GPUs and 2 CPUs" in told
