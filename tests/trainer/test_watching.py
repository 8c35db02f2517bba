import json
import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from propulsion.errors import ConfigError
from trainer.watching import RunWatcher


def test_steps_are_counted_in_prometheus_and_json_lines(tmp_path: Path) -> None:
    with RunWatcher("demo", tmp_path, total_steps=2, metrics_port=0) as watcher:
        watcher.step(1, loss=2.5, lr=0.1, tokens=30, seconds=0.5)
        watcher.step(2, loss=1.5, lr=0.2, tokens=20, seconds=0.25)
        watcher.evaluation(2, accuracy=0.75, majority_accuracy=0.5)
        port = watcher._metrics.port
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("run") == "demo"
    }
    assert samples["propulsion_train_steps_total"] == 2
    assert samples["propulsion_train_tokens_total"] == 50
    assert samples["propulsion_train_loss"] == 1.5
    assert samples["propulsion_train_learning_rate"] == 0.2
    assert samples["propulsion_train_accuracy_ratio"] == 0.75
    assert samples["propulsion_train_step_seconds_count"] == 2
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert lines[-1]["accuracy"] == 0.75
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics_port {port} cannot be used"):
            RunWatcher("demo", tmp_path, total_steps=1, metrics_port=port)
