"""A tiny LLaMA quantised by hand, in three ways at once.

Queries, keys and values are W8A8 in int8, attention's output W8A8 in FP8, the feed-forward layers
W4A16: int4 in groups.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GROUP_SIZE = 32
_FP8_MAX = torch.finfo(torch.float8_e4m3fn).max


def _digits(num_bits: int, kind: str, **how: object) -> dict[str, object]:
    return {"num_bits": num_bits, "type": kind, "symmetric": True, **how}


def _w8a8(kind: str) -> dict[str, object]:
    return {
        "format": f"{kind}-quantized",
        "weights": _digits(8, kind, strategy="channel", dynamic=False),
        "input_activations": _digits(8, kind, strategy="token", dynamic=True),
    }


# As llm-compressor writes it.
_CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "mixed-precision",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "qkv": {"targets": ["re:.*[qkv]_proj"], **_w8a8("int")},
        "attention": {"targets": ["re:.*o_proj"], **_w8a8("float")},
        "mlp": {
            "targets": ["re:.*mlp.*_proj"],
            "format": "pack-quantized",
            "weights": _digits(4, "int", strategy="group", group_size=GROUP_SIZE, dynamic=False),
        },
    },
}


def quantise(base: Path, folder: Path, scales: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Save the model of `base` quantised, with its outputs scaled where `scales` says so.

    The digits are the same whatever the scales: those of outputs go into those of weights.

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
        if "mlp" in module:
            tensors |= _int4(module, weight, scale)
        elif "o_proj" in module:
            tensors |= _per_channel(module, weight, scale, _FP8_MAX, torch.float8_e4m3fn)
        elif "self_attn" in module:
            tensors |= _per_channel(module, weight, scale, 127, torch.int8)
        else:
            tensors[name] = weight.bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config |= {"dtype": "bfloat16", "quantization_config": _CONFIG}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _per_channel(
    module: str, weight: torch.Tensor, scale: torch.Tensor, largest: float, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    step = weight.abs().amax(1, keepdim=True) / largest
    digits = weight / step
    return {
        f"{module}.weight": (digits if dtype.is_floating_point else digits.round()).to(dtype),
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
