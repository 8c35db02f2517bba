"""Prometheus metrics of the server, `propulsion_serve_*`; vLLM's own stand beside them."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    StoreUnavailableError,
)
from serving.observability.labels import BASE, BLEND, OTHER, UNKNOWN, AdapterLabels
from serving.observability.token_series import TokenCollector, TokenSeries

__all__ = ["BASE", "BLEND", "OTHER", "UNKNOWN", "ServeMetrics"]

_WAIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TTFT_BOUNDS = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0, 30.0, 60.0),
)
_REQUEST_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0),
)
_REASONS = {
    AdapterCorruptError: "corrupt",
    BaseMismatchError: "base_mismatch",
    AdapterNotFoundError: "not_found",
    ConfigError: "unsupported",
    StoreUnavailableError: "store_unavailable",
}
_STATUS_CODES = frozenset(str(status.value) for status in HTTPStatus)
_MAX_VERSIONS = 8


class WorkerState(Protocol):
    """Where a worker's adapters are, such as a `serving.registry.engine_adapters.EngineState`.

    Attributes:
        num_slots, slots_used: rows of the bank.
        pinned: ids of the adapters that keep their slot.
        slot_hits, slot_misses, evictions: counts since the engine started.
    """

    num_slots: int
    slots_used: int
    pinned: Collection[int]
    slot_hits: int
    slot_misses: int
    evictions: int


class ServeMetrics:
    """The server's counters. No text of a client's ever becomes a label.

    Args:
        top_adapters: how many adapter names get series of their own; the others share `other`.
        registry: where to register, the process's by default.
    """

    def __init__(self, top_adapters: int, registry: CollectorRegistry = REGISTRY):
        self._labels = AdapterLabels(top_adapters)
        self._split_versions: dict[str, set[str]] = {}
        self._worker_counts: dict[str, int] = {}
        self._tokens = TokenCollector()
        registry.register(self._tokens)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"propulsion_serve_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"propulsion_serve_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"propulsion_serve_{name}", text, labels, buckets=bounds, registry=registry
            )

        self._requests = counter(
            "requests_total",
            "Inference requests by how they ended: ok, client_error, server_error, aborted.",
            *("adapter", "outcome"),
        )
        self._errors = counter(
            "errors_total",
            "Requests refused or failed, by HTTP status; adapter `unknown` where none was reached.",
            *("adapter", "code"),
        )
        self._prompt_tokens = counter(
            "prompt_tokens_total", "Prompt tokens, those found in the prefix cache too.", "adapter"
        )
        self._ttft = histogram(
            "ttft_seconds",
            "Seconds from a request's arrival to its first token, loading its adapter included.",
            _TTFT_BOUNDS,
            "adapter",
        )
        self._queue = histogram(
            "queue_seconds",
            "Seconds that a sequence waited in the engine until it was first scheduled.",
            _WAIT_BOUNDS,
            "adapter",
        )
        self._request_seconds = histogram(
            "request_seconds",
            "Seconds from a request's arrival to the end of its answer, of requests that ended ok.",
            _REQUEST_BOUNDS,
            "adapter",
        )
        self._loads = counter("adapter_loads_total", "Adapters verified and loaded.")
        self._load_failures = counter(
            "load_failures_total",
            "Adapter loads that failed: corrupt, base_mismatch, not_found, unsupported, "
            "store_unavailable, other.",
            "reason",
        )
        # Prometheus sees no increase in a series that begins at 1.
        for reason in (*_REASONS.values(), OTHER):
            self._load_failures.labels(reason)
        self._load_seconds = histogram(
            "adapter_load_seconds",
            "Seconds to fetch and verify an adapter and to load it into host memory.",
            _WAIT_BOUNDS,
        )
        self._unloads = counter("adapter_unloads_total", "Adapters unloaded on request.")
        self._host_hits = counter(
            "host_cache_hits_total", "Requests whose adapter was in host memory."
        )
        self._host_misses = counter(
            "host_cache_misses_total", "Requests whose adapter had to be loaded first."
        )
        self._slot_hits = counter(
            "slot_hits_total",
            "Times an adapter joined the running batch from a slot it had run from before.",
        )
        self._slot_misses = counter(
            "slot_misses_total",
            "Times an adapter joined the running batch after its rows were copied to a slot.",
        )
        self._evictions = counter(
            "evictions_total", "Adapters pushed out by others, from slot or from host.", "level"
        )
        for level in ("slot", "host"):
            self._evictions.labels(level)
        self._slots = gauge("slots", "Slots of the bank: total, used, pinned.", "state")
        self.adapters_loaded = gauge("adapters_loaded", "Adapters in host memory.")
        self._capacity = gauge("adapters_capacity", "Adapters that host memory is to hold.")
        self._blends = counter("blends_total", "Requests for a blend of adapters.")
        self._splits = counter(
            "split_draws_total",
            "Requests that a weighted split sent to a version.",
            *("adapter", "version"),
        )
        self._restarts = counter("engine_restarts_total", "Times the engine was started again.")
        self._engine_up = gauge("engine_up", "Whether the engine lives: 1 or 0.")

    def adapter_label(self, name: str) -> str:
        """The label for an adapter that exists in the store; never give it a client's own text.

        Call it for each request: names asked for often are preferred.
        """
        return self._labels.label(name)

    def count_request(self, label: str, outcome: str) -> None:
        """Count one finished request; `label` from `adapter_label`, or BASE, BLEND or UNKNOWN."""
        self._requests.labels(label, outcome).inc()

    def count_error(self, label: str, status: int) -> None:
        """Count an answer with an HTTP status from 400."""
        code = str(status)
        self._errors.labels(label, code if code in _STATUS_CODES else OTHER).inc()

    def observe_request(self, label: str, seconds: float) -> None:
        """Record how long a request that ended ok took."""
        self._request_seconds.labels(label).observe(seconds)

    def tokens(self, label: str) -> TokenSeries:
        """The label's token counts, to look up once a request and write to once a token."""
        return self._tokens.series(label)

    def count_tokens(self, label: str, num_tokens: int) -> None:
        """Count tokens generated for a request."""
        self._tokens.series(label).generated += num_tokens

    def count_prompt_tokens(self, label: str, num_tokens: int) -> None:
        """Count the tokens of a prompt."""
        self._prompt_tokens.labels(label).inc(num_tokens)

    def observe_first_token(self, label: str, seconds: float) -> None:
        """Record a request's time to its first token."""
        self._ttft.labels(label).observe(seconds)

    def observe_queue(self, label: str, seconds: float) -> None:
        """Record how long a sequence waited in the engine."""
        self._queue.labels(label).observe(seconds)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Time and count the load done inside, as a failure if it raises."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._load_failures.labels(_REASONS.get(type(error), OTHER)).inc()
            raise
        self._loads.inc()
        self._load_seconds.observe(time.perf_counter() - start)

    def count_unload(self) -> None:
        """Count an adapter that was unloaded because someone asked for it."""
        self._unloads.inc()

    def count_hit(self) -> None:
        """Count a request whose adapter was in host memory."""
        self._host_hits.inc()

    def count_miss(self) -> None:
        """Count a request whose adapter had to be loaded."""
        self._host_misses.inc()

    def count_eviction(self) -> None:
        """Count an adapter that left host memory to make room."""
        self._evictions.labels("host").inc()

    def count_blend(self) -> None:
        """Count a request for a blend."""
        self._blends.inc()

    def count_split(self, label: str, version: str) -> None:
        """Count a request that a split sent to `version` of the adapter with that label."""
        if label == OTHER:
            version = OTHER
        versions = self._split_versions.setdefault(label, set())
        if version not in versions:
            if len(versions) >= _MAX_VERSIONS:
                version = OTHER
            versions.add(version)
        self._splits.labels(label, version).inc()

    def set_capacity(self, num_adapters: int) -> None:
        """Say how many adapters host memory is to hold."""
        self._capacity.set(num_adapters)

    def set_engine_up(self, up: bool) -> None:
        """Say whether the engine lives."""
        self._engine_up.set(up)

    def count_engine_restart(self) -> None:
        """Count a start of the engine after the first; its workers count from 0 again."""
        self._restarts.inc()
        self._worker_counts.clear()

    def set_worker_state(self, state: WorkerState) -> None:
        """Take over what a worker says of its slots."""
        self._slots.labels("total").set(state.num_slots)
        self._slots.labels("used").set(state.slots_used)
        self._slots.labels("pinned").set(len(state.pinned))
        self._advance(self._slot_hits, "slot_hits", state)
        self._advance(self._slot_misses, "slot_misses", state)
        self._advance(self._evictions.labels("slot"), "evictions", state)

    def _advance(self, counter: Counter, name: str, state: WorkerState) -> None:
        """Add what a worker's own count has grown by."""
        now, before = getattr(state, name), self._worker_counts.get(name, 0)
        # A smaller count is a worker that has begun anew.
        counter.inc(now - before if now >= before else now)
        self._worker_counts[name] = now
