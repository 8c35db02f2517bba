"""Random adapters with heads for a tiny base, and what transformers + PEFT answer by them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.serving import tiny

SEQUENCE = "SEQ_CLS"
TOKENS = "TOKEN_CLS"
_AUTO_MODELS = {
    SEQUENCE: "AutoModelForSequenceClassification",
    TOKENS: "AutoModelForTokenClassification",
}


def make_adapter(
    folder: Path,
    base: Path,
    *,
    seed: int,
    task: str = SEQUENCE,
    degree: int = 15,
    target_modules: Sequence[str] = ("q_proj", "v_proj", "up_proj", "down_proj"),
    **head: object,
) -> Path:
    """Save an adapter for `base` with a head of its own.

    Args:
        head: options of the model that shape it: num_labels, id2label, problem_type.
    """
    from peft import get_peft_model

    from propulsion import PropulsionConfig

    config = PropulsionConfig(degree=degree, target_modules=[*target_modules], task_type=task)
    model = get_peft_model(_load(base, task, **head), config)
    tiny.randomize(model, degree, 0.5, seed)
    model.save_pretrained(folder)
    return folder


def with_head(folder: Path, adapter: Path, weight: torch.Tensor) -> Path:
    """Save a copy of an adapter with another weight for its head."""
    shutil.copytree(adapter, folder)
    weights = folder / "adapter_model.safetensors"
    save_file({**load_file(weights), "base_model.model.score.weight": weight}, weights)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": None}))
    return folder


def reference_logits(
    base: Path, adapter: Path | None, task: str = SEQUENCE, **head: object
) -> list[torch.Tensor]:
    """Logits of transformers, with PEFT if an adapter is given, for each of tiny.PROMPTS in fp32.

    Returns:
        Of shape (num_labels,), or (num_tokens, num_labels) if the task is to classify tokens.
    """
    return [outputs.logits[0] for outputs in _outputs(base, adapter, task, **head)]


def reference_vectors(base: Path, adapter: Path | None) -> list[torch.Tensor]:
    """What a head reads, (hidden_size,), for each of tiny.PROMPTS in fp32."""
    return [outputs.hidden_states[-1][0, -1] for outputs in _outputs(base, adapter, SEQUENCE)]


def _outputs(base: Path, adapter: Path | None, task: str, **head: object) -> list:
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = _load(base, task, **head).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        return [
            model(**_inputs(tokenizer, prompt), output_hidden_states=True)
            for prompt in tiny.PROMPTS
        ]


def _inputs(tokenizer, prompt: str) -> dict[str, torch.Tensor]:
    encoded = tokenizer(prompt, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _load(base: Path, task: str, **head: object):
    import transformers

    auto = getattr(transformers, _AUTO_MODELS[task])
    return auto.from_pretrained(base, dtype=torch.float32, ignore_mismatched_sizes=True, **head)
