"""Models, adapters and samples small enough for a unit test."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from propulsion import PropulsionConfig

TINY_BASE = Path(__file__).parents[3] / "examples" / "tiny_base" / "model"
SST2 = Path(__file__).parents[3] / "examples" / "data" / "sst2" / "test.tsv"

VOCAB_SIZE = 4096
"""Of the tokenizer that ships with the tiny base."""


def llama(
    seed: int = 0, *, classes: int | None = None, tied: bool = True, layers: int = 2
) -> LlamaForCausalLM | LlamaForSequenceClassification:
    """Random weights in fp32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        pad_token_id=0,
        initializer_range=0.3,
    )
    if classes is None:
        return LlamaForCausalLM(config).eval()
    config.num_labels = classes
    return LlamaForSequenceClassification(config).eval()


def save_base(model: torch.nn.Module, folder: Path) -> Path:
    """A folder as `--base` takes it."""
    base: Any = model
    base.save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY_BASE).save_pretrained(folder)
    return folder


def adapted(model: torch.nn.Module, spread: float = 0.02, **settings: Any) -> PeftModel:
    """`model` with an adapter of random offsets, as if it was trained."""
    peft_model = get_peft_model(model, PropulsionConfig(**({"preset": "all"} | settings)))
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "propulsion_delta" in name:
                parameter.normal_(0.0, spread)
    return peft_model.eval()


def save_adapter(folder: Path, model: torch.nn.Module, **settings: Any) -> Path:
    """A folder as `--adapter` takes it; `model` is changed."""
    adapted(model, **settings).save_pretrained(str(folder))
    return folder
