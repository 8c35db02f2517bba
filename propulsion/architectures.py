"""Names of the layers in each architecture's blocks, and how a fused QKV projection is laid out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

QKV_PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class Architecture:
    """Where the parts of a transformer block are found, as suffixes of module names.

    `query`, `key` and `value` name the same layer where the projection is fused. A suffix in `mlp`
    that also matches a layer of the attention is told apart by `attention_output`, which must then
    be the longer one.
    """

    query: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    attention_output: tuple[str, ...]
    mlp: tuple[str, ...]
    embedding: tuple[str, ...]
    changes_outputs: bool = False
    """Whether the model adds to the outputs of these layers in place."""

    @property
    def linear(self) -> tuple[str, ...]:
        """All linear layers of a block."""
        return (*self.qkv, *self.attention_output, *self.mlp)

    @property
    def qkv(self) -> tuple[str, ...]:
        """The projections that the paper's Propulsion(Attn) scales."""
        return tuple(dict.fromkeys((*self.query, *self.key, *self.value)))

    @property
    def is_fused(self) -> bool:
        """Whether one layer gives queries, keys and values."""
        return self.query == self.key == self.value


def _split(
    prefix: str,
    attention_output: tuple[str, ...],
    mlp: tuple[str, ...],
    embedding: str,
    names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj"),
) -> Architecture:
    query, key, value = (f"{prefix}{name}" for name in names)
    return Architecture((query,), (key,), (value,), attention_output, mlp, (embedding,))


def _fused(
    qkv: str,
    attention_output: str,
    mlp: tuple[str, ...],
    embedding: str,
    changes_outputs: bool = False,
) -> Architecture:
    return Architecture(
        (qkv,), (qkv,), (qkv,), (attention_output,), mlp, (embedding,), changes_outputs
    )


_LLAMA = _split("", ("o_proj",), ("gate_proj", "up_proj", "down_proj"), "embed_tokens")
_BERT = _split(
    "attention.self.",
    ("attention.output.dense",),
    ("intermediate.dense", "output.dense"),
    "word_embeddings",
    ("query", "key", "value"),
)

ARCHITECTURES: dict[str, Architecture] = {
    "bart": _split(
        "",
        ("self_attn.out_proj", "encoder_attn.out_proj"),
        ("fc1", "fc2"),
        "embed_tokens",
    ),
    "bert": _BERT,
    "bloom": _fused(
        "self_attention.query_key_value",
        "self_attention.dense",
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        "word_embeddings",
    ),
    "deberta": _fused(
        "attention.self.in_proj",
        "attention.output.dense",
        ("intermediate.dense", "output.dense"),
        "word_embeddings",
    ),
    "deberta-v2": _split(
        "attention.self.",
        ("attention.output.dense",),
        ("intermediate.dense", "output.dense"),
        "word_embeddings",
        ("query_proj", "key_proj", "value_proj"),
    ),
    "falcon": _fused(
        "self_attention.query_key_value",
        "self_attention.dense",
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        "word_embeddings",
        changes_outputs=True,
    ),
    "gpt2": _fused("attn.c_attn", "attn.c_proj", ("mlp.c_fc", "mlp.c_proj"), "wte"),
    "gpt_neox": _fused(
        "attention.query_key_value",
        "attention.dense",
        ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        "embed_in",
    ),
    "gptj": _split("attn.", ("attn.out_proj",), ("mlp.fc_in", "mlp.fc_out"), "wte"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "opt": _split("self_attn.", ("self_attn.out_proj",), ("fc1", "fc2"), "embed_tokens"),
    "phi": _split("self_attn.", ("self_attn.dense",), ("mlp.fc1", "mlp.fc2"), "embed_tokens"),
    "phi3": _fused(
        "self_attn.qkv_proj", "self_attn.o_proj", ("gate_up_proj", "down_proj"), "embed_tokens"
    ),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "roberta": _BERT,
    "t5": Architecture(
        query=("SelfAttention.q", "EncDecAttention.q"),
        key=("SelfAttention.k", "EncDecAttention.k"),
        value=("SelfAttention.v", "EncDecAttention.v"),
        attention_output=("SelfAttention.o", "EncDecAttention.o"),
        mlp=(
            "DenseReluDense.wi",
            "DenseReluDense.wi_0",
            "DenseReluDense.wi_1",
            "DenseReluDense.wo",
        ),
        embedding=("embed_tokens",),
    ),
}
"""By the `model_type` of a transformers configuration."""


def ends_with_any(module: str, suffixes: Iterable[str]) -> bool:
    """Whether the path `module` ends with one of the names, as PEFT matches target_modules."""
    return any(module == suffix or module.endswith(f".{suffix}") for suffix in suffixes)


def fused_qkv_columns(model_config: Mapping[str, Any], part: str) -> list[int]:
    """Outputs of a fused QKV projection that are its queries, keys or values.

    Args:
        model_config: the transformers configuration of the model, as a dictionary.
        part: "query", "key" or "value".

    Returns:
        Column indices into the projection's output, ascending.
    """
    heads = model_config.get("num_attention_heads") or model_config["n_head"]
    hidden = model_config.get("hidden_size") or model_config["n_embd"]
    head = model_config.get("head_dim") or hidden // heads
    groups, counts = _fused_groups(model_config, heads)
    first = sum(counts[: QKV_PARTS.index(part)])
    chosen = range(first, first + counts[QKV_PARTS.index(part)])
    width = sum(counts)
    return [
        (group * width + vector) * head + column
        for group in range(groups)
        for vector in chosen
        for column in range(head)
    ]


def _fused_groups(model_config: Mapping[str, Any], heads: int) -> tuple[int, tuple[int, int, int]]:
    """How often (queries, keys, values) repeats in the output, and heads of each per repeat."""
    model_type = model_config["model_type"]
    if model_type == "gpt2":
        return 1, (heads, heads, heads)
    if model_type == "phi3":
        key_value = model_config.get("num_key_value_heads") or heads
        return 1, (heads, key_value, key_value)
    if model_type == "falcon" and model_config["new_decoder_architecture"]:
        key_value = model_config["num_kv_heads"]
        return key_value, (heads // key_value, 1, 1)
    if model_type == "falcon" and model_config["multi_query"]:
        return 1, (heads, 1, 1)
    # BLOOM, GPT-NeoX, DeBERTa and the first Falcon: head by head, its query, key and value.
    return heads, (1, 1, 1)
