"""Traffic that never was, in the server's own metrics."""

import math
import random

from prometheus_client import CollectorRegistry, generate_latest

from serving.observability.metrics import BASE, ServeMetrics
from serving.registry.engine_adapters import EngineState

SHARES = {
    "sst2": 0.34,
    "boolq": 0.2,
    "summarise-news": 0.16,
    "squad-answers": 0.1,
    "qnli": 0.07,
    BASE: 0.06,
    "support-triage": 0.04,
    "cola": 0.03,
}
TOKENS_PER_REQUEST = 24


class Traffic:
    """`advance` plays a stretch of time; `exposition` is what /metrics then answers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ServeMetrics(64, registry=self.registry)
        self._random = random.Random(5)
        self._seconds = 0.0
        self._running = self._waiting = 0

    def advance(self, seconds: float) -> None:
        """Requests in waves, the engine filling up at their crests."""
        self._seconds += seconds
        wave = 1 + 0.35 * math.sin(self._seconds / 40) + 0.1 * math.sin(self._seconds / 7)
        for name, share in SHARES.items():
            label = name if name == BASE else self.metrics.adapter_label(name)
            expected = 46 * seconds * share * wave * self._random.uniform(0.8, 1.2)
            for _ in range(round(expected)):
                self._request(label, wave)
        used = 1180 + round(90 * wave) + round(self._seconds / 6)
        self.metrics.set_worker_state(
            EngineState(num_slots=2000, slots_used=used, pinned=frozenset(range(37)))
        )
        self._running = round(48 * wave)
        self._waiting = max(0, round(26 * (wave - 1.15)))

    def _request(self, label: str, wave: float) -> None:
        refused = self._random.random() < 0.006
        self.metrics.count_request(label, "client_error" if refused else "ok")
        if refused:
            return
        self.metrics.observe_first_token(label, self._random.lognormvariate(-3.2, 0.45) * wave)
        self.metrics.count_tokens(label, TOKENS_PER_REQUEST)
        gap = 0.011 * wave * self._random.lognormvariate(0, 0.25)
        self.metrics.tokens(label).observe_gap(gap, TOKENS_PER_REQUEST - 1)

    def exposition(self) -> str:
        """Ours by prometheus_client, and vLLM's two gauges as vLLM names them."""
        own = generate_latest(self.registry).decode()
        labels = '{engine="0",model_name="llama-3.1-8b"}'
        return (
            f"{own}vllm:num_requests_running{labels} {self._running}.0\n"
            f"vllm:num_requests_waiting{labels} {self._waiting}.0\n"
        )
