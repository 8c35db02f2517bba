"""Adapters with random weights, written without loading the model that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WEIGHTS = "adapter_model.safetensors"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_RANK = 8


def write_adapters(
    folder: Path, base: Path, count: int, kind: str, *, num_files: int | None = None
) -> list[Path]:
    """Adapter folders for all linear layers of a LLaMA.

    Args:
        folder: where they are made.
        base: the model's folder; only its configuration is read.
        count: of adapters.
        kind: "propulsion" or "lora".
        num_files: how many have weights of their own, by default all; the others link to these.
    """
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from propulsion import PropulsionConfig

    options: dict[str, Any] = {"target_modules": list(LINEAR), "task_type": "CAUSAL_LM"}
    config = LoraConfig(r=LORA_RANK, **options) if kind == "lora" else PropulsionConfig(**options)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        shapes = {
            key: value.shape
            for key, value in get_peft_model_state_dict(get_peft_model(model, config)).items()
        }
    config.inference_mode = True
    folders = [folder / f"{kind}-{seed}" for seed in range(count)]
    for seed, target in enumerate(folders):
        config.save_pretrained(target)
        if num_files is not None and seed >= num_files:
            (target / WEIGHTS).hardlink_to(folders[seed % num_files] / WEIGHTS)
            continue
        generator = torch.Generator().manual_seed(seed)
        tensors = {k: torch.randn(s, generator=generator) * 1e-3 for k, s in shapes.items()}
        save_file(tensors, target / WEIGHTS)
    return folders
