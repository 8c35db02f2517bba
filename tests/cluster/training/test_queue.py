"""A queue's life, told once: quotas, priorities, a pack, a cancelled run, a lost head."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import AdapterStore
from cluster.training.queue_folder import QueuedRun, QueueFolder
from tests.cluster.training.dispatcher_process import DispatcherProcess
from tests.cluster.training.ray_cluster import RayCluster, propulsion, wait_until
from tests.trainer.runs import assert_same_weights, train_all, write_run
from trainer.result import read_result

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

STEPS = 60


class History:
    """What happened to a queue; every test looks at a part of it."""

    def __init__(self, folder: Path, base: Path, cluster: RayCluster) -> None:
        self.folder = folder
        self.queue = QueueFolder(folder / "queue")
        self._options = ("--queue", str(self.queue.folder))
        self._base = base
        self.queue.folder.mkdir()
        # One CPU of the cluster's two: a run at a time.
        (self.queue.folder / "queue.yaml").write_text("teams: {default: {cpus: 1}, idle: {}}\n")
        self.ids: dict[str, str] = {}
        self.dispatcher = DispatcherProcess(
            self.queue.folder, cluster.address, folder / "dispatcher.log"
        )

    def live(self, cluster: RayCluster) -> None:
        self.submit("interrupted", training__steps=STEPS, checkpoints__every=5)
        self.submit("packed-1", adapter={"degree": 15}, training__lr=0.003)
        self.submit("packed-2", training__steps=4)
        self.submit("urgent", cluster={"priority": 5, "pack": False})
        self.submit("dropped")
        self.dropped = propulsion("cluster", "cancel", "dropped", *self._options)
        checkpoints = self.folder / "interrupted" / "out" / "checkpoints"
        self.wait(lambda: checkpoints.is_dir() and any(checkpoints.glob("step-*")))
        cluster.lose_all()
        self.wait(lambda: "no Ray head answers" in self.dispatcher.log)
        self.status_without_head = propulsion("cluster", "status", *self._options)
        self.dispatcher.kill()
        cluster.start()
        self.dispatcher = DispatcherProcess(
            self.queue.folder, cluster.address, self.folder / "dispatcher.log"
        )
        self.wait(lambda: all(self[name].state.is_over for name in self.ids))
        self.submit("endless", training__steps=10**6)
        checkpoints = self.folder / "endless" / "out" / "checkpoints"
        self.wait(lambda: checkpoints.is_dir() and any(checkpoints.glob("step-*")))
        self.endless = propulsion("cluster", "cancel", "endless", *self._options)
        self.wait(lambda: self["endless"].state.is_over)
        self.log_of_interrupted = propulsion(
            "cluster",
            "logs",
            "-f",
            self.ids["interrupted"],
            *self._options,
            *("--address", cluster.address),
        )

    def submit(self, name: str, **changes) -> None:
        run = write_run(self.folder / name, self._base, name=name, **changes)
        self.ids[name] = propulsion("cluster", "submit", str(run), *self._options).strip()

    def wait(self, condition) -> None:
        wait_until(condition, lambda: self.dispatcher.log)

    def __getitem__(self, name: str) -> QueuedRun:
        return self.queue.find(self.ids[name])

    def out(self, name: str) -> Path:
        return self.folder / name / "out"


@pytest.fixture(scope="module")
def history(
    base: Path, cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    history = History(tmp_path_factory.mktemp("history"), base, cluster)
    try:
        history.live(cluster)
        yield history
    finally:
        history.dispatcher.kill()


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the same adapters, each trained by itself in one process without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    settings = {
        "interrupted": {"training__steps": STEPS},
        "packed-1": {"adapter": {"degree": 15}, "training__lr": 0.003},
        "packed-2": {"training__steps": 4},
    }
    train_all(*[write_run(folder / n, base, name=n, **one) for n, one in settings.items()])
    return folder


def test_the_loss_of_the_head_loses_no_run(history: History, alone: Path) -> None:
    for name in ("interrupted", "urgent", "packed-1", "packed-2"):
        assert history[name].state.state == "succeeded", history[name].state.message
    assert history["interrupted"].state.attempt == 2
    assert "continues from" in history.log_of_interrupted, "the head was lost too late"
    assert_same_weights(
        history.out("interrupted"), alone / "interrupted" / "out", 1e-5, "interrupted"
    )


def test_the_queue_can_be_read_while_there_is_no_head(history: History) -> None:
    lines = history.status_without_head.splitlines()
    states = [
        (name, state)
        for line in lines
        for name in history.ids
        for state in ("running", "queued", "cancelled")
        if name in line and state in line.split("│")[2]
    ]
    assert states == [
        ("interrupted", "running"),
        ("packed-1", "queued"),
        ("packed-2", "queued"),
        ("urgent", "queued"),
        ("dropped", "cancelled"),
    ]


def test_a_quota_lets_one_run_start_after_the_other_the_urgent_one_first(history: History) -> None:
    order = sorted(
        (history[name].state.started, history[name].state.finished, name)
        for name in ("interrupted", "urgent", "packed-1")
    )
    assert [name for *_, name in order] == ["interrupted", "urgent", "packed-1"]
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(order))


def test_packed_runs_give_the_adapters_of_each_alone(history: History, alone: Path) -> None:
    first, second = history["packed-1"], history["packed-2"]
    assert first.state.job == second.state.job != first.id
    for name in ("packed-1", "packed-2"):
        assert_same_weights(history.out(name), alone / name / "out", 1e-6, name)
        result = read_result(history.out(name)).only
        assert (result.name, result.adapter) == (name, f"{name}@v1")
        version = AdapterStore(history.folder / name / "store").verify(f"{name}@latest")
        assert version.manifest.training_config["lineage"] == {
            "run": name,
            "queued_as": history.ids[name],
            "job": first.state.job,
        }
        assert version.manifest.metrics["test_accuracy"] == result.score


def test_cancelled_runs_end_whether_they_wait_or_run(history: History) -> None:
    assert "taken from the queue" in history.dropped
    assert history["dropped"].state.state == "cancelled"
    assert history["dropped"].state.started is None
    assert not history.out("dropped").exists()
    assert "asked to end" in history.endless
    assert history["endless"].state.state == "cancelled"
    assert history["endless"].state.started is not None


def test_metrics_count_waiting_running_and_ended_runs(history: History) -> None:
    metric = history.dispatcher.metric
    finished = "propulsion_cluster_finished_runs_total"
    # Of the second dispatcher: `dropped` was cancelled before it.
    assert metric(finished, team="default", outcome="succeeded") == 4
    assert metric(finished, team="default", outcome="cancelled") == 1
    assert metric("propulsion_cluster_queue_wait_seconds_count") == 4
    for gauge in ("propulsion_cluster_queued_runs", "propulsion_cluster_running_runs"):
        assert metric(gauge) == 0


def test_a_second_dispatcher_is_refused_and_ctrl_c_ends_the_first(history: History) -> None:
    """Last in this file: it ends the dispatcher."""
    told = propulsion("cluster", "queue", str(history.queue.folder), code=2)
    assert "another dispatcher" in told
    assert history.dispatcher.interrupt() == 130
    assert "jobs go on" in history.dispatcher.log
    assert "Traceback" not in history.dispatcher.log
