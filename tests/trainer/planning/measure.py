"""Trains a tiny model in every placement, and prints the bytes of all tensors at the step.

A process of its own, for DeepSpeed joins ranks once in a process, and leftovers of other tests
would be counted too.
"""

import gc
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.trainer.planning.test_measured_states import PLACEMENTS, tiny_run
from trainer.adapted import AdaptedModel
from trainer.engine import start_engine, zero_section


def existing_bytes(bucket: int) -> int:
    """Of all tensors, each storage once; DeepSpeed's buckets of fixed size aside."""
    gc.collect()
    sizes: dict[int, int] = {}
    for found in gc.get_objects():
        if not isinstance(found, torch.Tensor):
            continue
        also = found.grad if found.is_leaf else None
        for tensor in (found, also, getattr(found, "ds_tensor", None)):
            if tensor is not None and not tensor.is_meta and tensor.numel() != bucket:
                storage = tensor.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def measure(folder: Path, index: int, num_adapters: int) -> int:
    """Bytes at the second step, when the moments are there."""
    run = tiny_run(folder, PLACEMENTS[index], num_adapters)
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(run.base)).bfloat16()
    adapted = AdaptedModel(base, run, "CAUSAL_LM")
    settings = dict(zip(adapted.names, (job.training for job in run.jobs), strict=True))
    engine, optimizer = start_engine(adapted.model, adapted.parameters, settings, run.deepspeed)
    sizes: list[int] = []
    bucket = zero_section(run.deepspeed)["reduce_bucket_size"]
    step = optimizer.step

    def measured_step(*args: Any, **kwargs: Any) -> Any:
        sizes.append(existing_bytes(bucket))
        return step(*args, **kwargs)

    optimizer.step = measured_step  # type: ignore[method-assign]
    ids = torch.zeros(len(run.jobs), 8, dtype=torch.int64)
    for _ in range(2):
        optimizer.begin_step(dict.fromkeys(adapted.names, 1e-3))
        with adapted.mixed(range(len(run.jobs)), range(len(run.jobs))):
            loss = engine(input_ids=ids).logits.float().square().mean()
        engine.backward(loss)
        del loss
        engine.step()
    return max(sizes[len(sizes) // 2 :])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    folder, index, num_adapters, found = sys.argv[1:]
    Path(found).write_text(json.dumps(measure(Path(folder), int(index), int(num_adapters))))
