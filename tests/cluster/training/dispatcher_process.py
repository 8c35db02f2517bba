"""A queue's dispatcher, in a process of its own."""

import signal
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.training.ray_cluster import start_propulsion
from tests.trainer.runs import free_port


class DispatcherProcess:
    """`propulsion cluster queue` as a service manager would run it."""

    def __init__(self, queue: Path, address: str, log: Path) -> None:
        self.metrics_port = free_port()
        self._log = log
        with log.open("a") as output:
            self._process = start_propulsion(
                *("cluster", "queue", str(queue), "--address", address),
                *("--poll-seconds", "0.3", "--metrics-port", str(self.metrics_port)),
                output=output,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def metric(self, sample: str, **labels: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        return sum(
            found.value
            for family in text_string_to_metric_families(text)
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
