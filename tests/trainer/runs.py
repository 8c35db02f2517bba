"""Run files and data small enough for a test."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

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


def save_tiny_base(folder: Path, hidden_size: int = 32) -> Path:
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
            hidden_size=hidden_size,
            intermediate_size=hidden_size * 3 // 2,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


def save_tiny_encoder(folder: Path) -> Path:
    """A random BERT with a word tokenizer, as a folder."""
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
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
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path


def metric_lines(output_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def train(run_file: Path, *args: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run `propulsion train` as a user would, in processes of its own."""
    return propulsion("train", str(run_file), *args, ranks=ranks)


def train_all(
    *run_files: Path | str, ranks: int = 1, module: str = "tests.trainer.several"
) -> None:
    """Train runs one after the other in the same processes, which saves starting them."""
    done = _run(module, *map(str, run_files), ranks=ranks)
    assert done.returncode == 0, done.stderr


def propulsion(*args: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command line, on several ranks through torchrun."""
    return _run("propulsion", *args, ranks=ranks)


def _run(module: str, *args: str, ranks: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m"]
    if ranks > 1:
        command += ["torch.distributed.run", f"--nproc-per-node={ranks}"]
        command += [f"--master-port={free_port()}", "-m"]
    return subprocess.run(
        [*command, module, *args],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def losses(output_dir: Path, adapter: str | None = None) -> list[float]:
    """The loss of each step in the order in which it was written."""
    return [
        line["loss"]
        for line in metric_lines(output_dir)
        if "loss" in line and adapter in (None, line["adapter"])
    ]


def final_weights(output_dir: Path, adapter: str = "tiny") -> dict[str, torch.Tensor]:
    return load_file(output_dir / "adapters" / adapter / "adapter_model.safetensors")


def assert_same_weights(one: Path, other: Path, tolerance: float, adapter: str = "tiny") -> None:
    reference = final_weights(other, adapter)
    weights = final_weights(one, adapter)
    assert weights.keys() == reference.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, reference[name], rtol=0, atol=tolerance)
