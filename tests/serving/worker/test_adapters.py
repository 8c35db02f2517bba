"""The adapters of a worker over a model of one layer, without an engine."""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from serving import vllm_compat
from serving.worker.adapters import WorkerAdapters
from tests.adapters.folders import write_adapter

pytestmark = pytest.mark.slow

WIDTH = 8
MAX_LORAS = 2
# One of them may be an adapter with two rows.
NUM_SLOTS = 3


class OneLayer(torch.nn.Module):
    """Adapters can scale its norm."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {}

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)

    def forward(self, x):
        return self.norm(x)


class Bench:
    """A worker's adapters; adapter i multiplies all values by i + 1."""

    def __init__(self, root: Path):
        self.root = root
        self.model = OneLayer()
        config = SimpleNamespace(
            lora_config=SimpleNamespace(max_loras=MAX_LORAS, max_cpu_loras=8),
            scheduler_config=SimpleNamespace(max_num_batched_tokens=16, max_num_seqs=1),
            model_config=SimpleNamespace(
                hf_text_config=SimpleNamespace(to_dict=dict),
                runner_type="generate",
                dtype=torch.float32,
            ),
            compilation_config=SimpleNamespace(mode=0, cudagraph_mode=0),
            speculative_config=None,
            additional_config={"propulsion": {"enabled": True}},
        )
        self.adapters = WorkerAdapters(config, torch.device("cpu"), {})
        self.adapters.create_lora_manager(self.model, config)

    def request(self, adapter_id: int):
        folder = self.root / str(adapter_id)
        if not folder.exists():
            delta = np.full((1, WIDTH), adapter_id, np.float32)
            tensors = {"base_model.model.norm.propulsion_delta": delta}
            write_adapter(folder, tensors, degree=1, pooling="mean", target_modules=["norm"])
        return vllm_compat.LoRARequest(f"a{adapter_id}", adapter_id, str(folder))

    def step(self, *ids: int) -> list[float]:
        """Run one token for each adapter (0: the base); by what its values were multiplied."""
        mapping = SimpleNamespace(
            index_mapping=np.array(ids), type=vllm_compat.LoRAMappingType.LANGUAGE
        )
        self.adapters.set_active_adapters([self.request(i) for i in ids if i], mapping)
        x = torch.randn(len(ids), WIDTH)
        with torch.no_grad():
            plain = torch.nn.functional.layer_norm(x, (WIDTH,))
            return (self.model(x) / plain).mean(1).round(decimals=3).tolist()

    def counts(self) -> tuple[int, int]:
        state = self.adapters.state()
        return state["slot_hits"], state["slot_misses"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_token_is_scaled_by_its_own_adapter(bench):
    assert bench.step(2, 0, 1, 2) == [3, 1, 2, 3]


def test_an_adapter_counts_once_each_time_it_joins_the_batch(bench):
    bench.step(1)
    bench.step(1, 1)
    assert bench.counts() == (0, 1)
    bench.step(1, 2)
    bench.step(1)
    assert bench.counts() == (0, 2)
    bench.step(2, 1)
    assert bench.counts() == (1, 2)


def test_a_copy_ahead_of_the_step_is_a_miss_of_that_step(bench):
    bench.adapters.add_adapter(bench.request(1))
    assert bench.counts() == (0, 0)
    bench.step(1)
    bench.step(0)
    bench.step(1)
    assert bench.counts() == (1, 1)


def test_a_pin_may_take_the_slot_of_an_adapter_that_goes_on_running(bench):
    bench.adapters.add_adapter(bench.request(3))
    bench.adapters.pin_adapter(3)
    assert bench.step(1, 2) == [2, 3]
    bench.adapters.add_adapter(bench.request(4))
    bench.adapters.pin_adapter(4)
    assert bench.step(1, 2) == [2, 3]


def test_what_was_loaded_stays_when_the_base_gets_new_weights(bench, tmp_path):
    bench.adapters.add_adapter(bench.request(1))
    bench.adapters.pin_adapter(1)
    assert bench.step(1, 2) == [2, 3]
    # As after vLLM's sleep, which drops memory.
    bench.adapters._bank.rows.fill_(float("nan"))
    bench.adapters._bank.token_slots.fill_(NUM_SLOTS)
    bench.adapters.remove_all_adapters()
    (tmp_path / "1" / "adapter_config.json").unlink()
    state = bench.adapters.state()
    assert (state["host"], state["pinned"], state["slots"]) == ([1, 2], [1], {})
    assert bench.step(2, 0, 1) == [3, 1, 2]
    assert bench.adapters.state()["slots"].keys() == {1, 2}
