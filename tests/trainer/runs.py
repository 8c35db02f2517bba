"""Run files and data small enough for a test."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "the",
    "film",
    "is",
    "a",
    "good",
    "bad",
    "fine",
    "dull",
    "very",
    "not",
    "story",
    "and",
    "was",
    "truly",
]


def save_tiny_base(folder: Path) -> Path:
    """A random LLaMA with a word tokenizer, as a folder."""
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "<unk>", "?", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


def write_run(folder: Path, base: Path, **changes: Any) -> Path:
    """A run on 24 sentences; `changes` are `section__key=value` or `key=value`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (f"the {noun} {verb} {word}", int(word in ("good", "fine")))
        for noun in ("film", "story")
        for verb in ("is", "was", "is very")
        for word in ("good", "bad", "fine", "dull")
    ]
    text = "sentence\tlabel\n" + "".join(f"{s}\t{label}\n" for s, label in rows)
    (folder / "train.tsv").write_text(text)
    (folder / "test.tsv").write_text(text)
    run: dict[str, Any] = {
        "name": "tiny",
        "base": str(base),
        "output_dir": "out",
        "adapter": {"preset": "all", "degree": 3},
        "data": {
            "train": "train.tsv",
            "test": "test.tsv",
            "records": {
                "format": "tsv",
                "text": "sentence",
                "label": "label",
                "labels": {"0": "bad", "1": "good"},
            },
            "prompt": "{text} ?",
            "max_length": 16,
        },
        "task": {"type": "answer", "answer": "choice", "max_new_tokens": 2},
        "training": {"steps": 6, "batch_size": 8, "lr": 0.02},
        "checkpoints": {"every": 3},
        "deepspeed": {"stage": 2},
        "publish": {"store": "store"},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            run.setdefault(section, {})[name] = value
        else:
            run[section] = value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def metric_lines(output_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
