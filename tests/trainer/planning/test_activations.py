"""What is worked out without data against what autograd really saves on a CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    GPTJConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from trainer.adapted import AdaptedModel
from trainer.config import RunConfig, load_run
from trainer.planning.activations import Activations, trace_activations
from trainer.planning.meta_model import build_on_meta

ROWS, LENGTH, JOBS = 3, 32, [0, 1, 0]


def llama(depth: int) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


def bloom(depth: int) -> PreTrainedConfig:
    return BloomConfig(vocab_size=300, hidden_size=64, n_layer=depth, n_head=4)


def gptj(depth: int) -> PreTrainedConfig:
    return GPTJConfig(
        vocab_size=300,
        n_embd=64,
        n_layer=depth,
        n_head=4,
        rotary_dim=8,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
    )


def run_on(folder: Path, config: PreTrainedConfig, dtype: str) -> RunConfig:
    config.save_pretrained(folder / "base")
    tree = {
        "name": "tiny",
        "base": "base",
        "output_dir": "out",
        "adapter": {"preset": "all"},
        "data": {"train": "a.json", "test": "b.json", "records": {"format": "instruction"}},
        "training": {"steps": 2},
        "adapters": {"first": {}, "second": {"adapter": {"preset": "attn"}}},
        "deepspeed": {"dtype": dtype},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    return load_run(folder / "run.yaml")


def traced(run: RunConfig) -> Activations:
    adapted, _ = build_on_meta(run, run.base)
    return trace_activations(adapted, JOBS, LENGTH)


@dataclass
class Saved:
    weights: set[int]
    storages: dict[int, Any]

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.storages[storage.data_ptr()] = storage
        return tensor


def saved_on_cpu(run: RunConfig, *, checkpointing: bool = False) -> int:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[run.deepspeed.dtype]
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(run.base), dtype=dtype)
    if checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted = AdaptedModel(base, run, "CAUSAL_LM")
    model = adapted.model.train()
    tensors = (*model.parameters(), *model.buffers())
    saved = Saved({t.untyped_storage().data_ptr() for t in tensors}, {})
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    mask = torch.ones_like(ids)
    # Some padding, as records of different length have: without it there is no mask to keep.
    mask[0, -1] = 0
    with (
        adapted.mixed(JOBS, [0, 1]),
        torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor),
    ):
        logits = model(input_ids=ids, attention_mask=mask).logits
        kept = torch.log_softmax(logits.float(), dim=-1)
    total = sum(storage.nbytes() for storage in saved.storages.values())
    del kept
    return total


@pytest.mark.parametrize("config", [llama, bloom, gptj])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_activations_are_what_autograd_saves(config: Any, dtype: str, tmp_path: Path) -> None:
    run = run_on(tmp_path, config(2), dtype)
    assert traced(run).kept == pytest.approx(saved_on_cpu(run), rel=0.03)


@pytest.mark.parametrize("config", [llama, bloom, gptj])
def test_checkpointing_keeps_block_inputs_and_one_block(config: Any, tmp_path: Path) -> None:
    run, deeper = (run_on(tmp_path / str(n), config(n), "bf16") for n in (3, 4))
    one_block = saved_on_cpu(deeper) - saved_on_cpu(run)
    wanted = saved_on_cpu(run, checkpointing=True) + one_block
    assert traced(run).checkpointed == pytest.approx(wanted, rel=0.03)


def test_a_decoder_that_reads_targets_is_followed_too(tmp_path: Path) -> None:
    from transformers import T5Config

    config = T5Config(
        vocab_size=300, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, pad_token_id=0
    )
    config.decoder_start_token_id = 0
    run = run_on(tmp_path, config, "bf16")
    run = load_run(tmp_path / "run.yaml", ["task={type: summarization, model: seq2seq}"])
    short, long = (
        trace_activations(build_on_meta(run, run.base)[0], JOBS, LENGTH, target).kept
        for target in (8, 16)
    )
    assert 0 < short < long
