"""Saves and publishes an adapter that leaves its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainer.adapted import AdaptedModel
from trainer.config import RunConfig
from trainer.progress import JobProgress
from trainer.publishing import publish_adapter
from trainer.result import AdapterResult
from trainer.tasks.task import Scores


def finish_adapter(
    run: RunConfig,
    index: int,
    progress: JobProgress,
    adapted: AdaptedModel,
    weights: dict[str, torch.Tensor],
    scores: Scores | None,
    *,
    trivial_score: float | None,
    num_test: int,
    trainable_parameters: int,
    identity: dict[str, Any],
    note: Callable[[str], None],
) -> AdapterResult:
    """Write `adapters/<name>`, publish it, and say what it has reached; on rank 0 alone.

    Args:
        run: the run.
        index: which of its adapters.
        progress: where that one stands.
        adapted: the model.
        weights: path → whole tensor of what is trained.
        scores: of the weights; None if they diverged, which is then all that is told of them.
        trivial_score: of always giving the most frequent answer.
        num_test: test records, to be told.
        trainable_parameters: to be told.
        identity: of the run, published with the adapter.
        note: tells the user.
    """
    job = run.jobs[index]
    reference = held_back = ""
    if scores is not None:
        folder = run.output_dir / "adapters" / job.name
        adapted.save(index, weights, folder)
        reference = str(folder)
        if job.publish is not None:
            base_score = (progress.base_scores or {}).get(scores.metric)
            reference, held_back = publish_adapter(
                job, folder, identity, scores.metric, scores.values, base_score
            )
            note(f"published as {reference}")
            if held_back:
                note(f"{reference} does not pass its gate, no alias moves: {held_back}")
    return AdapterResult(
        name=job.name,
        adapter=reference,
        status=progress.status,
        metric=scores.metric if scores is not None else "",
        score=None if scores is None else scores.main,
        base_score=(progress.base_scores or {}).get(scores.metric) if scores is not None else None,
        trivial_score=trivial_score,
        scores={} if scores is None else dict(scores.values),
        num_test=num_test,
        trainable_parameters=trainable_parameters,
        steps=progress.step,
        best_step=progress.best_step,
        held_back=held_back,
    )
