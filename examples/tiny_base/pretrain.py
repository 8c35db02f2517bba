"""Pretrain the tiny LLaMA base that ships with the project, from training splits only.

    python examples/tiny_base/pretrain.py --data DATA --out examples/tiny_base/model

Seeded; runs on CPU (bf16 autocast, about half an hour) or on one GPU. Writes bf16
safetensors, the config, the tokenizer and `training.json` with the curve of the losses.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from corpus import training_documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
VOCAB_SIZE = 4096
SEQUENCE_LENGTH = 128
HELD_OUT_SHARE = 0.01
EPOCH_WEIGHTS = {
    "sst2": 3.0,
    "cola": 2.0,
    "gsm8k": 0.25,
    "math": 1.0,
    "mawps": 1.0,
    "commonsense": 1.0,
}
"""How often an epoch visits a source: short sentences are few tokens, solutions are many."""


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every digit is its own token, so that numbers are spelled."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def epoch_documents(encoded: dict[str, list[list[int]]], rng: random.Random) -> list[list[int]]:
    """The documents of one epoch: whole visits of a source, then a random share of it."""
    documents: list[list[int]] = []
    for name, source in encoded.items():
        visits, share = divmod(EPOCH_WEIGHTS[name], 1)
        documents += source * int(visits) + rng.sample(source, round(share * len(source)))
    return documents


def pack(documents: list[list[int]], rng: random.Random) -> torch.Tensor:
    """Shuffle the documents and cut their concatenation into (rows, SEQUENCE_LENGTH + 1)."""
    order = rng.sample(documents, len(documents))
    stream = torch.tensor([token for document in order for token in document])
    rows = (len(stream) - 1) // SEQUENCE_LENGTH
    return torch.stack(
        [stream[i * SEQUENCE_LENGTH : (i + 1) * SEQUENCE_LENGTH + 1] for i in range(rows)]
    )


def build_optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices, lr=lr, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over 2 % of the steps, then cosine to zero."""
    warmup = max(1, steps // 50)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, rows: torch.Tensor, device: str) -> float:
    model.eval()
    losses = [_loss(model, batch.to(device)).item() for batch in rows.split(32)]
    model.train()
    return sum(losses) / len(losses)


def _loss(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    device = rows.device.type
    with torch.autocast(device, torch.bfloat16):
        logits = model(rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save in bf16, then give the running model its fp32 weights back."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.to(torch.bfloat16).save_pretrained(out)
    model.float().load_state_dict(weights)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with glue/, gsm8k/, …")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=32, help="rows of 128 tokens")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=500, help="steps between snapshots")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    sources = training_documents(args.data)
    tokenizer = train_tokenizer([text for texts in sources.values() for text in texts])
    encoded: dict[str, list[list[int]]] = {}
    held_out: list[list[int]] = []
    for name, texts in sources.items():
        ids = [[*i, tokenizer.eos_token_id] for i in tokenizer(texts)["input_ids"]]
        rng.shuffle(ids)
        cut = int(len(ids) * HELD_OUT_SHARE)
        held_out += ids[:cut]
        encoded[name] = ids[cut:]
        print(f"{name}: {len(texts):,} documents, {sum(map(len, ids)):,} tokens", flush=True)
    held_out_rows = pack(held_out, random.Random(args.seed))

    model = LlamaForCausalLM(model_config(tokenizer)).to(device)
    print(f"{model.num_parameters():,} parameters on {device}", flush=True)
    optimizers = build_optimizers(model, args.lr)
    training_loss = torch.compile(_loss)
    rows = pack(epoch_documents(encoded, rng), rng)
    steps = int(args.epochs * len(rows) / args.batch_size)
    curve: list[dict[str, float]] = []
    start = time.time()
    running = 0.0
    for step in range(steps):
        if len(rows) < args.batch_size:
            rows = torch.cat([rows, pack(epoch_documents(encoded, rng), rng)])
        batch, rows = rows[: args.batch_size], rows[args.batch_size :]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * learning_rate_factor(step, steps)
        loss = training_loss(model, batch.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            held = held_out_loss(model, held_out_rows, device)
            curve.append({"step": step + 1, "train_loss": running, "held_out_loss": held})
            print(
                f"step {step + 1}/{steps} train {running:.3f} held out {held:.3f} "
                f"{(step + 1) / (time.time() - start):.2f} steps/s",
                flush=True,
            )
        if (step + 1) % args.save_every == 0 or step + 1 == steps:
            save(model, tokenizer, args.out)
    report = {
        "arguments": {k: v for k, v in vars(args).items() if not isinstance(v, Path)},
        "parameters": model.num_parameters(),
        "documents": {name: len(texts) for name, texts in sources.items()},
        "steps": steps,
        "seconds": round(time.time() - start),
        "curve": curve,
    }
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
