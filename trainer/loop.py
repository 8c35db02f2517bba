"""One run on one rank: load, train with DeepSpeed, evaluate, checkpoint, save, publish."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapters import AdapterStore
from propulsion.errors import ConfigError
from trainer import optimizer_state
from trainer.batches import (
    TokenizedExample,
    collate,
    rank_share,
    step_indices,
    tokenize,
)
from trainer.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from trainer.config import RunConfig
from trainer.engine import add_adapter, load_base, micro_batches, start_engine
from trainer.evaluation import evaluate
from trainer.identity import fingerprint_of, run_identity
from trainer.records import load_examples
from trainer.schedule import learning_rate
from trainer.watching import RunWatcher, SilentWatcher, Watcher

CheckpointHook = Callable[[Path, Progress], None]


@dataclass(frozen=True)
class RunResult:
    """What a finished run has reached; written to `result.json`. Accuracies are from 0 to 1."""

    name: str
    adapter: str
    base_accuracy: float
    adapter_accuracy: float
    majority_accuracy: float
    num_test: int
    trainable_parameters: int
    steps: int
    train_seconds: float


def train(
    run: RunConfig,
    *,
    overwrite: bool = False,
    on_checkpoint: CheckpointHook | None = None,
) -> RunResult:
    """Train, evaluate, save and publish one run; every rank of the run calls this.

    A run that was cut off continues from its last checkpoint when it is started again. One that
    came to its end is not run again: its result is returned.

    Args:
        run: the run.
        overwrite: delete what an earlier run left in `output_dir`.
        on_checkpoint: called on every rank after each checkpoint was written.

    Raises:
        PropulsionError: something in the run file, the data or the output folder is wrong.
    """
    # Everything that can be wrong in the input is found before the ranks meet and memory fills.
    train_examples = load_examples(run.data.train, run.data, run.data.train_limit)
    test_examples = load_examples(run.data.test, run.data, run.data.test_limit)
    rank, world_size = _join_ranks()
    micro_batches(run, world_size)
    if rank == 0:
        _prepare_output_dir(run, overwrite)
    torch.distributed.barrier()
    torch.manual_seed(run.seed)
    base, tokenizer = load_base(run.base, run.deepspeed.dtype)
    dataset = tokenize(tokenizer, train_examples, run.data.max_length)
    model = add_adapter(base, run)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    identity = run_identity(run, fingerprint_of(run.base))
    finished = _finished_before(run, identity)
    if finished is not None:
        return finished
    engine = start_engine(model, run, world_size)

    def measure() -> tuple[float, float]:
        result = evaluate(
            engine.module, tokenizer, test_examples, run, rank=rank, world_size=world_size
        )
        return result.accuracy, result.majority_accuracy

    with _watcher(run, rank) as watcher:
        progress = Progress()
        checkpoint = latest_checkpoint(run.output_dir)
        if checkpoint is not None:
            progress = load_checkpoint(engine, checkpoint, identity)
            watcher.note(f"continues from {checkpoint}")
        if progress.base_accuracy is None:
            # A fresh adapter is the base model, bit for bit.
            accuracy, majority = measure()
            progress = replace(progress, base_accuracy=accuracy)
            watcher.evaluation(0, accuracy, majority)

        start = time.perf_counter()
        for step in range(progress.step, run.training.steps):
            began = time.perf_counter()
            indices = step_indices(len(dataset), run.training.batch_size, step, run.seed)
            lr = learning_rate(run.training, step)
            loss = _train_step(
                engine, [dataset[i] for i in indices], lr, tokenizer.pad_token_id, rank, world_size
            )
            tokens = sum(len(dataset[i].ids) for i in indices)
            progress = replace(progress, step=step + 1, tokens=progress.tokens + tokens)
            watcher.step(step + 1, loss, lr, tokens, time.perf_counter() - began)
            last = step + 1 == run.training.steps
            if (step + 1) % run.training.checkpoint_every == 0 or last:
                path = save_checkpoint(
                    engine, run.output_dir, progress, identity, run.training.keep_checkpoints
                )
                if on_checkpoint is not None:
                    on_checkpoint(path, progress)
            every = run.training.eval_every
            if every is not None and (step + 1) % every == 0 and not last:
                watcher.evaluation(step + 1, *measure())
        seconds = time.perf_counter() - start

        accuracy, majority = measure()
        watcher.evaluation(run.training.steps, accuracy, majority)
        assert progress.base_accuracy is not None
        result = RunResult(
            name=run.name,
            adapter=str(run.output_dir / "adapter"),
            base_accuracy=progress.base_accuracy,
            adapter_accuracy=accuracy,
            majority_accuracy=majority,
            num_test=len(test_examples),
            trainable_parameters=trainable,
            steps=run.training.steps,
            train_seconds=seconds,
        )
        return _finish(engine, run, result, identity, rank, watcher)


def _join_ranks() -> tuple[int, int]:
    """Join the process group of torchrun or Ray, or make one of this process alone."""
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if "RANK" in os.environ:
            torch.distributed.init_process_group(backend)
        else:
            os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _prepare_output_dir(run: RunConfig, overwrite: bool) -> None:
    if overwrite and run.output_dir.exists():
        shutil.rmtree(run.output_dir)
    try:
        run.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"output_dir {run.output_dir} cannot be written: {error.strerror}"
        ) from error


@contextlib.contextmanager
def _watcher(run: RunConfig, rank: int) -> Iterator[Watcher]:
    if rank != 0:
        yield SilentWatcher()
        return
    with RunWatcher(run.name, run.output_dir, run.training.steps, run.metrics_port) as watcher:
        yield watcher


def _train_step(
    engine: Any,
    batch: Sequence[TokenizedExample],
    lr: float,
    pad_id: int,
    rank: int,
    world_size: int,
) -> float:
    """One optimiser step; returns the mean loss per target token over all ranks.

    The loss is the mean over the target tokens of the whole step, so it is the same however the
    step is divided into ranks and micro-batches.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
    target_tokens = sum(example.num_target_tokens for example in batch)
    # Examples of like length share a micro-batch, so that little of it is padding.
    batch = sorted(batch, key=lambda example: len(example.ids))
    mine = rank_share(batch, rank, world_size)
    micro = engine.train_micro_batch_size_per_gpu()
    accumulation = engine.gradient_accumulation_steps()
    total = torch.zeros((), device=engine.device)
    engine.train()
    for start in range(0, len(mine), micro):
        tensors = collate(mine[start : start + micro], pad_id)
        tensors = {name: tensor.to(engine.device) for name, tensor in tensors.items()}
        labels = tensors.pop("labels")
        logits = engine(**tensors).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
        )
        # DeepSpeed averages over ranks and accumulation steps; this makes it a mean over tokens.
        engine.backward(loss * (world_size * accumulation / target_tokens))
        engine.step()
        total += loss.detach()
    if world_size > 1:
        torch.distributed.all_reduce(total)
    value = total.item() / target_tokens
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigError(
            f"the loss is {value}: lower training.lr (z^k moves degree times as fast as z), "
            "or check the base model; the last checkpoint is intact"
        )
    return value


def _finished_before(run: RunConfig, identity: dict[str, Any]) -> RunResult | None:
    """The result of an earlier run that was this one, if it came to its end."""
    path = run.output_dir / "result.json"
    checkpoint = latest_checkpoint(run.output_dir)
    if checkpoint is None or not path.exists():
        return None
    if read_progress(checkpoint, identity).step < run.training.steps:
        return None
    return RunResult(**json.loads(path.read_text()))


def _finish(
    engine: Any,
    run: RunConfig,
    result: RunResult,
    identity: dict[str, Any],
    rank: int,
    watcher: Watcher,
) -> RunResult:
    """Save the adapter and publish it; rank 0 writes, all ranks take part in the gathering."""
    weights = optimizer_state.full_weights(engine)
    if rank == 0:
        folder = run.output_dir / "adapter"
        engine.module.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
        if run.publish is not None:
            version = AdapterStore(run.publish.store).publish(
                folder,
                run.publish.name or run.name,
                base_fingerprint=identity["base"],
                metrics={
                    key: value for key, value in asdict(result).items() if key.endswith("accuracy")
                },
                training_config=identity,
                aliases=run.publish.aliases,
            )
            result = replace(result, adapter=version.reference)
            watcher.note(f"published as {version.reference}")
        path = run.output_dir / "result.json"
        path.write_text(json.dumps(asdict(result), indent=1) + "\n")
    torch.distributed.barrier()
    return result
