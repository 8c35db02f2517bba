"""What each preset means in each architecture."""

from __future__ import annotations

from markdown_table import code, markdown_table

from propulsion.architectures import ARCHITECTURES, Architecture

_HEADER = ("`model_type`", "`attn`", "`mlp`", "`all` adds", "`embedding`")


def preset_table() -> str:
    """One row for each set of layers; architectures that share one share the row."""
    model_types: dict[Architecture, list[str]] = {}
    for model_type, architecture in sorted(ARCHITECTURES.items()):
        model_types.setdefault(architecture, []).append(model_type)
    return markdown_table(
        _HEADER, (_row(names, architecture) for architecture, names in model_types.items())
    )


def _row(model_types: list[str], architecture: Architecture) -> list[str]:
    fused = " (fused)" if architecture.is_fused else ""
    return [
        _codes(model_types),
        _codes(architecture.qkv) + fused,
        _codes(architecture.mlp),
        _codes(architecture.attention_output),
        _codes(architecture.embedding),
    ]


def _codes(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(code, names))
