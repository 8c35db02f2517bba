"""Every known architecture at a size for unit tests, with random weights."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

VOCAB_SIZE = 99
HIDDEN = 32
INNER = 48
HEADS = 4
HEAD = HIDDEN // HEADS
LAYERS = 2


@dataclass(frozen=True)
class Tiny:
    """A tiny model, and the widths that a closed form of its parameter counts needs."""

    model_type: str
    auto: Any
    config: dict[str, Any]
    attn: int
    """Outputs of Q, K and V of all layers together, cross-attention included."""
    mlp: int
    attention_output: int
    embedding: int = HIDDEN
    key: int = LAYERS * HIDDEN
    """Outputs of K alone."""

    @property
    def counts(self) -> dict[str, int]:
        """Parameters of each preset with one vector."""
        return {
            "attn": self.attn,
            "mlp": self.mlp,
            "all": self.attn + self.mlp + self.attention_output,
            "embedding": self.embedding,
            "key": self.key,
        }

    def build(self, seed: int = 0) -> PreTrainedModel:
        """The model in eval mode, with biases and norms that are not trivial."""
        torch.manual_seed(seed)
        config = AutoConfig.for_model(self.model_type, vocab_size=VOCAB_SIZE, **self.config)
        model = self.auto.from_config(config, attn_implementation="eager")
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)
        return model.eval()

    def inputs(self, seed: int = 0) -> dict[str, torch.Tensor]:
        """A batch with labels."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, VOCAB_SIZE, (2, 7), generator=generator)
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


_HF = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
_GATED = {**_HF, "intermediate_size": INNER, "tie_word_embeddings": False}
_GPT = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 32, "n_inner": INNER}
_BERT = {**_HF, "intermediate_size": INNER, "max_position_embeddings": 40, "pad_token_id": 0}
_SEQ2SEQ_ATTENTION = 3 * LAYERS  # encoder, decoder, and the decoder's cross-attention


def _gated(model_type: str, key_value_heads: int = 2, **config: Any) -> Tiny:
    heads = HIDDEN + 2 * key_value_heads * HEAD
    return Tiny(
        model_type,
        AutoModelForCausalLM,
        {**_GATED, "num_key_value_heads": key_value_heads, **config},
        attn=LAYERS * heads,
        mlp=LAYERS * (2 * INNER + HIDDEN),
        attention_output=LAYERS * HIDDEN,
        key=LAYERS * key_value_heads * HEAD,
    )


def _plain(model_type: str, auto: Any, config: dict[str, Any], inner: int = INNER) -> Tiny:
    return Tiny(
        model_type,
        auto,
        config,
        attn=LAYERS * 3 * HIDDEN,
        mlp=LAYERS * (inner + HIDDEN),
        attention_output=LAYERS * HIDDEN,
    )


TINY: dict[str, Tiny] = {
    "llama-1": _gated("llama", key_value_heads=HEADS),
    "llama-2": _gated("llama"),
    "llama-3": _gated(
        "llama",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        tie_word_embeddings=True,
    ),
    "mistral": _gated("mistral", sliding_window=4),
    "qwen2": _gated("qwen2"),
    "qwen3": _gated("qwen3", head_dim=HEAD),
    "phi-3": _gated("phi3", pad_token_id=0),
    "bloom": _plain(
        "bloom",
        AutoModelForCausalLM,
        {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS},
        inner=4 * HIDDEN,
    ),
    "gpt-j": _plain("gptj", AutoModelForCausalLM, {**_GPT, "rotary_dim": 4}),
    "gpt-2": _plain("gpt2", AutoModelForCausalLM, _GPT),
    "gpt-neox": _plain("gpt_neox", AutoModelForCausalLM, {**_HF, "intermediate_size": INNER}),
    "falcon-7b": Tiny(
        "falcon",
        AutoModelForCausalLM,
        {**_HF, "ffn_hidden_size": INNER, "multi_query": True},
        attn=LAYERS * (HIDDEN + 2 * HEAD),
        mlp=LAYERS * (INNER + HIDDEN),
        attention_output=LAYERS * HIDDEN,
        key=LAYERS * HEAD,
    ),
    "falcon-40b": Tiny(
        "falcon",
        AutoModelForCausalLM,
        {**_HF, "ffn_hidden_size": INNER, "new_decoder_architecture": True, "num_kv_heads": 2},
        attn=LAYERS * (HIDDEN + 2 * 2 * HEAD),
        mlp=LAYERS * (INNER + HIDDEN),
        attention_output=LAYERS * HIDDEN,
        key=LAYERS * 2 * HEAD,
    ),
    "falcon-rw": _plain(
        "falcon",
        AutoModelForCausalLM,
        {**_HF, "ffn_hidden_size": INNER, "multi_query": False, "alibi": True},
    ),
    "phi-2": _plain("phi", AutoModelForCausalLM, {**_HF, "intermediate_size": INNER}),
    "opt": _plain(
        "opt",
        AutoModelForCausalLM,
        {**_HF, "ffn_dim": INNER, "word_embed_proj_dim": HIDDEN, "max_position_embeddings": 40},
    ),
    "roberta": _plain("roberta", AutoModelForMaskedLM, _BERT),
    "bert": _plain("bert", AutoModelForMaskedLM, _BERT),
    "deberta-v1": _plain(
        "deberta",
        AutoModelForMaskedLM,
        {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "deberta-v2": _plain(
        "deberta-v2",
        AutoModelForMaskedLM,
        {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "deberta-v3": _plain(
        "deberta-v2",
        AutoModelForMaskedLM,
        {
            **_BERT,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_buckets": 8,
        },
    ),
    "bart": Tiny(
        "bart",
        AutoModelForSeq2SeqLM,
        {
            "d_model": HIDDEN,
            "encoder_layers": LAYERS,
            "decoder_layers": LAYERS,
            "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS,
            "encoder_ffn_dim": INNER,
            "decoder_ffn_dim": INNER,
            "max_position_embeddings": 40,
        },
        attn=_SEQ2SEQ_ATTENTION * 3 * HIDDEN,
        mlp=2 * LAYERS * (INNER + HIDDEN),
        attention_output=_SEQ2SEQ_ATTENTION * HIDDEN,
        embedding=2 * HIDDEN,
        key=_SEQ2SEQ_ATTENTION * HIDDEN,
    ),
    **{
        name: Tiny(
            "t5",
            AutoModelForSeq2SeqLM,
            {
                "d_model": HIDDEN,
                "d_kv": HEAD,
                "d_ff": INNER,
                "num_layers": LAYERS,
                "num_heads": HEADS,
                "feed_forward_proj": activation,
                "decoder_start_token_id": 0,
            },
            attn=_SEQ2SEQ_ATTENTION * 3 * HIDDEN,
            mlp=2 * LAYERS * (inner + HIDDEN),
            attention_output=_SEQ2SEQ_ATTENTION * HIDDEN,
            embedding=2 * HIDDEN,
            key=_SEQ2SEQ_ATTENTION * HIDDEN,
        )
        for name, activation, inner in (("t5", "relu", INNER), ("t5-1.1", "gated-gelu", 2 * INNER))
    },
}
"""Keyed by what people call the architecture; several variants where the layout differs."""
