"""The base and the adapters that the traffic asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCABULARY = 256


def write_base(folder: Path) -> Path:
    """A random 2-layer LLaMA of hidden 64, and a tokenizer of its numbers."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0").save_pretrained(folder)
    return folder


def publish_adapters(place: Path, folder: Path, base: Path, count: int) -> Iterator[str]:
    """Publish random adapters, through `folder`, to the store at `place`; yields their names."""
    import torch
    from peft import get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from adapters import base_fingerprint
    from adapters.manifest import README_FILE
    from adapters.store import AdapterStore
    from propulsion import PropulsionConfig
    from propulsion.adapter_folder import WEIGHTS_FILE

    config = PropulsionConfig(target_modules=list(MODULES), task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    (folder / README_FILE).unlink(missing_ok=True)
    shapes = {key: value.shape for key, value in load_file(folder / WEIGHTS_FILE).items()}
    store, fingerprint = AdapterStore(place), base_fingerprint(base)
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        tensors = {k: torch.randn(s, generator=generator) * 1e-3 for k, s in shapes.items()}
        save_file(tensors, folder / WEIGHTS_FILE)
        name = f"adapter-{index:05d}"
        store.publish(folder, name, base_fingerprint=fingerprint)
        yield name
