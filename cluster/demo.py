"""`propulsion demo`: the main job on the data and the base that ship with the project."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.config import DataSection

EXAMPLES = Path(__file__).parents[1] / "examples"
BASE_NAME = "tiny-base"
PROMPTS_PER_ADAPTER = 12


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for runs, store and summary.json; replaced if it exists.")
    ] = Path("runs/demo"),
    workers: Annotated[int, typer.Option(min=1, help="Ray workers that train together.")] = 2,
) -> None:
    """Train adapters with Ray and DeepSpeed, publish them, and serve them in mixed batches."""
    began = time.monotonic()

    import shutil

    import ray
    from rich.console import Console

    from adapters import AdapterStore
    from cluster.mixed_batch import compare_mixed_batch
    from cluster.served_requests import ask_server
    from cluster.training.ray_train import start_ray, train_on_ray
    from propulsion.errors import ConfigError, PropulsionError
    from trainer.config import load_run

    run_files = sorted((EXAMPLES / "demo").glob("*.yaml"))
    base = EXAMPLES / "tiny_base" / "model"
    if not run_files or not base.is_dir():
        raise ConfigError(
            f"{EXAMPLES} holds no demo: run it from a clone of the repository (make demo)"
        )
    console = Console()
    out = out.resolve()
    if out.exists():
        if any(out.iterdir()) and not (out / "store").is_dir():
            raise ConfigError(f"{out} holds something else than a demo: choose another --out")
        shutil.rmtree(out)
    store = AdapterStore(out / "store")

    console.rule("Train: Ray starts DeepSpeed, the adapters go to the store")
    runs = []
    for path in run_files:
        run = load_run(path)
        run.output_dir = out / run.name
        assert run.job.publish is not None
        run.job.publish.store = str(out / "store")
        runs.append(run)
    start_ray(workers)
    try:
        runs_done = [train_on_ray(run, workers) for run in runs]
    finally:
        ray.shutdown()

    console.rule("Serve: one engine, every request names its own adapter")
    results = [done.only for done in runs_done]
    versions = [store.verify(result.adapter) for result in results]
    examples = {
        version.name: _examples(run.job.data) for version, run in zip(versions, runs, strict=True)
    }
    requests = [(v.name, e.prompt) for v in versions for e in examples[v.name]]
    requests += [(BASE_NAME, e.prompt) for e in examples[versions[0].name]]
    served = ask_server(
        base,
        out / "store",
        requests,
        max_tokens=max(run.task.max_new_tokens for run in runs if run.task.type == "answer"),
        served_name=BASE_NAME,
        log=out / "server.log",
    )
    counted = sum(served.requests_counted.values())
    if counted != len(requests):
        raise PropulsionError(
            f"sent {len(requests)} requests, but /metrics counts {counted} that ended well "
            f"(see {out / 'server.log'})"
        )
    _print_answers(console, requests, served.answers)
    console.print(
        f"{len(requests)} requests at once, {len(versions)} adapters and the base; /metrics counts "
        + ", ".join(f"{name} {n}" for name, n in sorted(served.requests_counted.items()))
    )

    console.rule("Check: one mixed batch against transformers with PEFT, each adapter alone")
    prompts = {name: [e.prompt for e in records] for name, records in examples.items()}
    prompts[""] = [e.prompt for records in examples.values() for e in records[:8]]
    batch = compare_mixed_batch(str(base), versions, prompts)
    console.print(f"{batch.num_equal} of {batch.num_requests} requests: the same tokens")

    summary = {
        "tasks": [
            {
                "name": result.name,
                "adapter": result.adapter,
                "base_accuracy": result.base_score,
                "adapter_accuracy": result.score,
                "majority_accuracy": result.trivial_score,
                "num_test": result.num_test,
                "trainable_parameters": result.trainable_parameters,
                "train_seconds": round(done.train_seconds, 1),
                "workers": workers,
                "zero_stage": run.deepspeed.stage,
            }
            for result, done, run in zip(results, runs_done, runs, strict=True)
        ],
        "mixed_batch_matches": batch.matches,
        "mixed_batch_requests": batch.num_requests,
        "served_requests": served.requests_counted,
        "seconds": round(time.monotonic() - began, 1),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _print_summary(console, summary)
    console.print(f"written to {out / 'summary.json'}; make serve serves these adapters")
    if not batch.matches:
        raise PropulsionError("the mixed batch gave other tokens than the adapters alone")


def _examples(data: DataSection) -> Sequence[Any]:
    from trainer.data.reading import read_records

    return read_records(data.test, data, "answer", PROMPTS_PER_ADAPTER, split="test")


def _print_answers(
    console: Console, requests: Sequence[tuple[str, str]], answers: Sequence[str]
) -> None:
    from rich.table import Table

    table = Table("model", "prompt", "answer", title="Some of the answers")
    for model in dict.fromkeys(model for model, _ in requests):
        asked = [(p, a) for (m, p), a in zip(requests, answers, strict=True) if m == model]
        # All prompts of a task begin and end alike; what lies between tells them apart.
        words = [prompt.split() for prompt, _ in asked]
        begin, end = _num_common(words), _num_common([w[::-1] for w in words])
        for prompt, (_, answer) in list(zip(words, asked, strict=True))[:3]:
            shown = " ".join(prompt[begin : len(prompt) - end])
            table.add_row(model, shown, " ".join(answer.split()))
    console.print(table)


def _num_common(rows: Sequence[Sequence[str]]) -> int:
    """How many words all rows begin with alike."""
    columns = list(zip(*rows, strict=False))
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(columns))


def _print_summary(console: Console, summary: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title="Exact match on test records")
    table.add_column("task")
    for column in ("base", "adapter", "most frequent answer", "test records", "parameters"):
        table.add_column(column, justify="right")
    for task in summary["tasks"]:
        table.add_row(
            task["name"],
            f"{task['base_accuracy']:.1%}",
            f"{task['adapter_accuracy']:.1%}",
            f"{task['majority_accuracy']:.1%}",
            f"{task['num_test']:,}",
            f"{task['trainable_parameters']:,}",
        )
    console.print(table)
