"""The shape of the random LLaMA models that benchmarks on a CPU run."""

from typing import Any

from transformers import LlamaConfig


def llama_config(layers: int, hidden: int, vocabulary: int, **options: Any) -> LlamaConfig:
    """LLaMA's proportions at any size: an MLP 11/4 as wide as `hidden`, heads of 64."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        **options,
    )
