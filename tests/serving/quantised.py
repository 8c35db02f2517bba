"""A tiny LLaMA quantised by hand: attention W8A8 (int8), feed-forward W4A16 (int4 in groups)."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GROUP_SIZE = 32
_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
_INT4 = {"num_bits": 4, "type": "int", "symmetric": True}
# As llm-compressor writes it.
_CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "mixed-precision",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "attention": {
            "targets": ["re:.*self_attn.*_proj"],
            "format": "int-quantized",
            "weights": {**_INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**_INT8, "strategy": "token", "dynamic": True},
        },
        "mlp": {
            "targets": ["re:.*mlp.*_proj"],
            "format": "pack-quantized",
            "weights": {**_INT4, "strategy": "group", "group_size": GROUP_SIZE, "dynamic": False},
        },
    },
}


def quantise(base: Path, folder: Path, scales: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Save the model of `base` quantised, with its outputs scaled where `scales` says so.

    Integers are the same whatever the scales: those of outputs go into those of weights.

    Args:
        base: a LLaMA as transformers saves it.
        folder: where to.
        scales: what to multiply a module's outputs by, by module path.
    """
    shutil.copytree(base, folder)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        scale = (scales or {}).get(module, torch.ones(1))
        if "self_attn" in module:
            tensors |= _int8(module, weight, scale)
        elif "mlp" in module:
            tensors |= _int4(module, weight, scale)
        else:
            tensors[name] = weight.bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config |= {"dtype": "bfloat16", "quantization_config": _CONFIG}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _int8(module: str, weight: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    step = weight.abs().amax(1, keepdim=True) / 127
    return {
        f"{module}.weight": (weight / step).round().to(torch.int8),
        f"{module}.weight_scale": step * scale[:, None],
    }


def _int4(module: str, weight: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    num_out, num_in = weight.shape
    groups = weight.view(num_out, -1, GROUP_SIZE)
    step = (groups.abs().amax(2, keepdim=True) / 7).bfloat16()
    # Eight to an int32, the first in the lowest bits.
    digits = ((groups / step).round().clamp(-8, 7) + 8).long().view(num_out, -1, 8)
    packed = (digits << (4 * torch.arange(8))).sum(2)
    return {
        f"{module}.weight_packed": packed.to(torch.int32),
        f"{module}.weight_scale": (step[:, :, 0] * scale[:, None]).bfloat16(),
        f"{module}.weight_shape": torch.tensor([num_out, num_in]),
    }
