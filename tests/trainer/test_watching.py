import json
import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from propulsion.errors import ConfigError
from trainer.tasks.task import Scores
from trainer.watching import AdapterStep, RunWatcher


def test_steps_are_counted_in_prometheus_and_json_lines(tmp_path: Path) -> None:
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
