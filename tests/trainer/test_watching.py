import json
import socket
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from propulsion.errors import ConfigError
from trainer.metrics_target import list_target
from trainer.tasks.task import Scores
from trainer.watching import AdapterStep, RunWatcher


def test_steps_are_counted_in_prometheus_and_json_lines(tmp_path: Path) -> None:
    began = time.time()
    with RunWatcher(
        "demo", tmp_path, 2, metrics_port=0, flops_per_token=6.0, peak_flops=1200.0
    ) as watcher:
        first = AdapterStep(1, loss=2.5, lr=0.1, tokens=30)
        watcher.step(1, {"a": first, "b": AdapterStep(1, 4.0, 0.3, 10)}, seconds=0.5)
        watcher.step(2, {"a": AdapterStep(2, loss=1.5, lr=0.2, tokens=20)}, seconds=0.25)
        watcher.evaluation("a", 2, Scores("accuracy", {"accuracy": 0.75}, 4), 0.5)
        port = watcher._metrics.port
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    samples = {
        (sample.name, sample.labels.get("adapter")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("run") == "demo"
    }
    assert samples["propulsion_train_steps_total", "a"] == 2
    assert samples["propulsion_train_steps_total", "b"] == 1
    assert samples["propulsion_train_tokens_total", "a"] == 50
    assert samples["propulsion_train_loss", "a"] == 1.5
    assert samples["propulsion_train_learning_rate", "a"] == 0.2
    assert samples["propulsion_train_score_ratio", "a"] == 0.75
    assert samples["propulsion_train_step_seconds_count", None] == 2
    assert began <= samples["propulsion_train_last_step_timestamp_seconds", None] <= time.time()
    assert samples["propulsion_train_tokens_per_second", None] == 80
    assert samples["propulsion_train_flops_utilisation_ratio", None] == 0.4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["adapter"], line["step"]) for line in lines] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("a", 2),
    ]
    assert lines[-1]["scores"] == {"accuracy": 0.75}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_tensorboard_holds_each_adapters_curve(tmp_path: Path) -> None:
    with RunWatcher("demo", tmp_path, 1, tensorboard=True) as watcher:
        watcher.step(1, {"a": AdapterStep(1, 2.5, 0.1, 30)}, seconds=0.5)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss/a" in events.read_bytes()


def test_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics_port {port} cannot be used"):
            RunWatcher("demo", tmp_path, 1, metrics_port=port)


def test_a_run_is_listed_for_prometheus_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    with RunWatcher("demo", tmp_path, 1, metrics_port=0, metrics_targets=folder) as watcher:
        port = watcher._metrics.port
        assert json.loads((folder / "demo.json").read_text()) == [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"role": "trainer", "run": "demo"}}
        ]
    assert list(folder.iterdir()) == []


def test_a_run_that_fails_stays_listed(tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    with (
        pytest.raises(ConfigError),
        RunWatcher("demo", tmp_path, 1, metrics_port=0, metrics_targets=folder),
    ):
        raise ConfigError("the loss is nan")
    assert [path.name for path in folder.iterdir()] == ["demo.json"]


def test_a_run_that_is_interrupted_by_hand_is_not_missed(tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    with (
        pytest.raises(KeyboardInterrupt),
        RunWatcher("demo", tmp_path, 1, metrics_port=0, metrics_targets=folder),
    ):
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_a_run_that_serves_on_every_address_lists_one_that_others_can_reach(tmp_path: Path) -> None:
    path = list_target(tmp_path, "demo", "0.0.0.0", 9101)
    (group,) = json.loads(path.read_text())
    assert group["targets"] == [f"{socket.gethostbyname(socket.gethostname())}:9101"]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"metrics_targets .*file cannot be written"):
        RunWatcher("demo", tmp_path, 1, metrics_port=0, metrics_targets=tmp_path / "file")
