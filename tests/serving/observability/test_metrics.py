import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    PropulsionError,
    StoreUnavailableError,
)
from serving.observability.labels import AdapterLabels
from serving.observability.metrics import BASE, BLEND, OTHER, UNKNOWN, ServeMetrics
from serving.observability.worker_state import watch_worker_state


@dataclass
class State:
    num_slots: int = 8
    slots_used: int = 3
    pinned: tuple[int, ...] = (1,)
    slot_hits: int = 0
    slot_misses: int = 0
    evictions: int = 0


def test_the_first_failed_load_and_eviction_are_increases():
    registry = CollectorRegistry()
    metrics = ServeMetrics(1, registry)
    for reason in ("corrupt", "base_mismatch", "store_unavailable", "unsupported", "other"):
        name = "propulsion_serve_load_failures_total"
        assert registry.get_sample_value(name, {"reason": reason}) == 0
    metrics.count_eviction()
    values = [
        registry.get_sample_value("propulsion_serve_evictions_total", {"level": level})
        for level in ("host", "slot")
    ]
    assert values == [1, 0]


def adapters_of(registry: CollectorRegistry) -> set[str]:
    families = registry.collect()
    return {s.labels["adapter"] for f in families for s in f.samples if "adapter" in s.labels}


def series_by_name(registry: CollectorRegistry) -> Counter[str]:
    return Counter(s.name for f in registry.collect() for s in f.samples if "le" not in s.labels)


def touch(metrics: ServeMetrics, label: str) -> None:
    metrics.count_request(label, "ok")
    metrics.observe_request(label, 0.1)
    metrics.count_error(label, 500)
    metrics.count_prompt_tokens(label, 3)
    metrics.count_tokens(label, 3)
    metrics.tokens(label).observe_gap(0.01, 2)
    metrics.observe_first_token(label, 0.1)
    metrics.observe_queue(label, 0.1)


def test_ten_thousand_adapters_make_no_more_than_top_and_a_few_series():
    registry = CollectorRegistry()
    metrics = ServeMetrics(20, registry)
    for _ in range(2):
        for number in range(10_000):
            label = metrics.adapter_label(f"adapter-{number}")
            touch(metrics, label)
            metrics.count_split(label, f"v{number}")
    for label in (BASE, UNKNOWN, BLEND):
        touch(metrics, label)
    assert len(adapters_of(registry)) <= 20 + 4
    assert max(series_by_name(registry).values()) <= 20 * 8 + 4
    assert len(metrics._labels._asked) <= 1024


def test_names_that_come_first_get_series_and_keep_them():
    labels = AdapterLabels(8)
    first = [labels.label(f"a{i}") for i in range(6)]
    assert first == [f"a{i}" for i in range(6)]
    assert {labels.label(f"b{i}") for i in range(1000)} == {OTHER}
    assert [labels.label(f"a{i}") for i in range(6)] == first


def test_the_last_places_are_kept_for_names_asked_for_often():
    labels = AdapterLabels(8)
    for number in range(6):
        labels.label(f"a{number}")
    for number in range(100):
        assert labels.label("rare" + str(number)) == OTHER
        labels.label("busy")
    assert labels.label("busy") == "busy"
    assert labels.label("rare1") == OTHER


def test_with_no_place_all_adapters_are_other():
    assert AdapterLabels(0).label("a") == OTHER


@pytest.mark.parametrize("name", [BASE, OTHER, UNKNOWN, BLEND])
def test_an_adapter_named_like_a_special_label_is_not_mixed_up_with_it(name):
    assert AdapterLabels(8).label(name) == OTHER


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1), max_size=60), st.integers(0, 10))
def test_a_label_is_the_name_itself_or_other_and_the_number_is_bounded(names, top):
    labels = AdapterLabels(top)
    given_labels = [labels.label(name) for name in names]
    assert all(label in (name, OTHER) for name, label in zip(names, given_labels, strict=True))
    assert len(set(given_labels) - {OTHER}) <= top


@given(st.integers(-(10**6), 10**6))
def test_an_error_code_that_is_no_http_status_is_other(code):
    registry = CollectorRegistry()
    ServeMetrics(1, registry).count_error(UNKNOWN, code)
    (sample,) = [
        s for f in registry.collect() for s in f.samples if s.name.endswith("errors_total")
    ]
    assert sample.labels["code"] == OTHER or 100 <= int(sample.labels["code"]) < 600


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AdapterCorruptError, "corrupt"),
        (BaseMismatchError, "base_mismatch"),
        (AdapterNotFoundError, "not_found"),
        (ConfigError, "unsupported"),
        (StoreUnavailableError, "store_unavailable"),
        (PropulsionError, "other"),
        (OSError, "other"),
    ],
)
def test_a_load_that_fails_counts_by_reason_and_takes_no_time_series(error, reason):
    registry = CollectorRegistry()
    with pytest.raises(error), ServeMetrics(1, registry).load():
        raise error("x")
    name = "propulsion_serve_load_failures_total"
    assert registry.get_sample_value(name, {"reason": reason}) == 1
    assert registry.get_sample_value("propulsion_serve_adapter_loads_total") == 0
    assert registry.get_sample_value("propulsion_serve_adapter_load_seconds_count") == 0


def test_token_series_are_a_proper_counter_and_histogram_in_the_text_format():
    registry = CollectorRegistry()
    metrics = ServeMetrics(4, registry)
    tokens = metrics.tokens(metrics.adapter_label("a"))
    tokens.generated += 7
    tokens.observe_gap(0.001, 1)
    tokens.observe_gap(0.004, 2)
    tokens.observe_gap(99.0, 1)
    families = {
        f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())
    }
    assert families["propulsion_serve_generated_tokens"].type == "counter"
    gaps = families["propulsion_serve_inter_token_seconds"]
    assert gaps.type == "histogram"
    buckets = {s.labels["le"]: s.value for s in gaps.samples if s.name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.005"], buckets["5.0"], buckets["+Inf"]) == (1, 3, 3, 4)
    name = "propulsion_serve_inter_token_seconds_sum"
    assert registry.get_sample_value(name, {"adapter": "a"}) == pytest.approx(99.009)
    name = "propulsion_serve_generated_tokens_total"
    assert registry.get_sample_value(name, {"adapter": "a"}) == 7


def test_a_split_counts_the_versions_it_drew_up_to_a_bound():
    registry = CollectorRegistry()
    metrics = ServeMetrics(4, registry)
    for number in range(100):
        metrics.count_split("a", f"v{number}")
    name = "propulsion_serve_split_draws_total"
    assert registry.get_sample_value(name, {"adapter": "a", "version": "v0"}) == 1
    assert registry.get_sample_value(name, {"adapter": "a", "version": OTHER}) == 92


def test_the_workers_counts_become_counters_that_survive_a_restarted_engine():
    registry = CollectorRegistry()
    metrics = ServeMetrics(4, registry)
    name = "propulsion_serve_slot_hits_total"
    for hits in (5, 9, 9):
        metrics.set_worker_state(State(slot_hits=hits))
    assert registry.get_sample_value(name) == 9
    metrics.count_engine_restart()
    metrics.set_worker_state(State(slot_hits=20, evictions=2))
    assert registry.get_sample_value(name) == 29
    metrics.set_worker_state(State(slot_hits=1, evictions=2))
    assert registry.get_sample_value(name) == 30
    slot = {"level": "slot"}
    assert registry.get_sample_value("propulsion_serve_evictions_total", slot) == 2
    for state, number in (("total", 8), ("used", 3), ("pinned", 1)):
        assert registry.get_sample_value("propulsion_serve_slots", {"state": state}) == number


def test_watching_the_workers_goes_on_after_the_engine_was_away():
    registry = CollectorRegistry()
    metrics = ServeMetrics(4, registry)

    async def run():
        answers = iter([RuntimeError("dead"), State(slot_misses=4)])
        told = asyncio.Event()

        async def fetch():
            answer = next(answers, None)
            if answer is None:
                told.set()
                await asyncio.Event().wait()
            if isinstance(answer, Exception):
                raise answer
            return answer

        task = asyncio.create_task(watch_worker_state(fetch, metrics, interval_seconds=0.001))
        await asyncio.wait_for(told.wait(), 10)
        task.cancel()

    asyncio.run(run())
    assert registry.get_sample_value("propulsion_serve_slot_misses_total") == 4
