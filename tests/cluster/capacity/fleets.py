"""Replicas of round numbers, and scenarios of them. No test here measures a machine by these."""

from __future__ import annotations

from typing import Any

from cluster.capacity.simulation.scenario import Scenario
from cluster.capacity.simulation.traffic import Lengths, Rate
from cluster.capacity.times import (
    AdapterTimes,
    Conditions,
    EngineLimits,
    Fit,
    ReplicaTimes,
    StepTimes,
)


def made_up_times(**changes: float) -> ReplicaTimes:
    """Times of a replica; `changes` go to the section that has the field."""
    sections: dict[str, Any] = {
        "step": {
            "fixed_seconds": 0.01,
            "per_sequence_seconds": 0.0005,
            "per_prefill_token_seconds": 0.0001,
            "per_admission_seconds": 0.002,
        },
        "adapter": {
            "load_seconds": 0.02,
            "load_blocking_seconds": 0.01,
            "slot_write_seconds": 0.001,
            "row_bytes": 4096,
        },
        "limits": {
            "max_num_seqs": 32,
            "max_num_batched_tokens": 1024,
            "kv_cache_tokens": 100_000,
            "batch_adapters": 32,
            "slots": 40,
            "host_adapters": 100,
        },
        "request_seconds": 0.005,
        "boot_seconds": 20.0,
    }
    for name, value in changes.items():
        place = next((s for s in sections.values() if isinstance(s, dict) and name in s), sections)
        assert name in place
        place[name] = value
    return ReplicaTimes(
        step=StepTimes(**sections["step"]),
        adapter=AdapterTimes(**sections["adapter"]),
        limits=EngineLimits(**sections["limits"]),
        request_seconds=sections["request_seconds"],
        boot_seconds=sections["boot_seconds"],
        conditions=Conditions(
            device="made up",
            gpus_per_replica=2,
            base="made up",
            replicas_at_once=1,
            concurrency=(1, 16),
            prompt_tokens=(16, 128),
            output_tokens=(4, 64),
            repeats=1,
            load_average=(0.0, 0.0),
            versions={},
        ),
        fit=Fit(waves=1, median_error=0.0, worst_error=0.0, spread=0.0),
    )


def scenario(times: ReplicaTimes | None = None, **changes: Any) -> Scenario:
    """Four replicas under half of what they can do."""
    fields: dict[str, Any] = {
        "times": times or made_up_times(),
        "replicas": 4,
        "policy": "affinity",
        "num_requests": 4000,
        "rate": Rate((80.0,)),
        "num_adapters": 800,
        "zipf_exponent": 1.0,
        "prompt": Lengths(64, 0.5),
        "output": Lengths(16, 0.5),
    }
    return Scenario(**(fields | changes))
