"""Which layers a preset means, by the `model_type` of a transformers model."""

from __future__ import annotations

from dataclasses import dataclass

from propulsion.errors import ConfigError


@dataclass(frozen=True)
class BlockLayers:
    """Names of the linear layers in one transformer block."""

    qkv: tuple[str, ...]
    attention_output: tuple[str, ...]
    mlp: tuple[str, ...]


_LLAMA = BlockLayers(
    qkv=("q_proj", "k_proj", "v_proj"),
    attention_output=("o_proj",),
    mlp=("gate_proj", "up_proj", "down_proj"),
)

BLOCK_LAYERS: dict[str, BlockLayers] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}

PRESETS = ("attn", "mlp", "all")


def preset_modules(preset: str, model_type: str) -> set[str]:
    """Module name suffixes that `preset` targets in a model of `model_type`.

    Raises `ConfigError` for an unknown preset or architecture.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    block = BLOCK_LAYERS.get(model_type)
    if block is None:
        raise ConfigError(
            f"no preset is known for model type {model_type!r} (known: "
            f"{', '.join(sorted(BLOCK_LAYERS))}); give target_modules, for example 'all-linear'"
        )
    if preset == "attn":
        return set(block.qkv)
    if preset == "mlp":
        return set(block.mlp)
    return {*block.qkv, *block.attention_output, *block.mlp}
