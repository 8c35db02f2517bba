"""A run from one change of its adapters to the next, on one rank."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from propulsion.errors import ConfigError, PropulsionError
from trainer import optimizer_state
from trainer.adapted import AdaptedModel
from trainer.best_weights import keep_best, load_best
from trainer.checkpoint import (
    Trained,
    latest_checkpoint,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from trainer.checkpoint_copies import copies_of
from trainer.config import RunConfig
from trainer.engine import start_engine, stop_engine
from trainer.evaluation import evaluate
from trainer.finishing import finish_adapter
from trainer.identity import fingerprint_of, run_identity
from trainer.job_data import JobData, JobRecords
from trainer.joining import count_queued
from trainer.loading import load_base, load_tokenizer
from trainer.packing import check_packs
from trainer.progress import JobProgress, Progress
from trainer.ranks import from_rank_0, seed_step
from trainer.result import RESULT_FILE, RunResult, read_result, write_result
from trainer.schedule import learning_rate
from trainer.tasks.task import Scores
from trainer.train_step import Passes, TrainStep
from trainer.utilisation import model_flops, peak_flops
from trainer.watching import AdapterStep, RunWatcher, SilentWatcher, Watcher

CheckpointHook = Callable[[Path, Progress], None]

EvaluationHook = Callable[[str, int, Scores], None]
"""Told an adapter's name, how many steps it has made, and its scores."""

Adapt = Callable[[Any, RunConfig, str], AdaptedModel]
"""Puts the adapters of a run on its base, for a kind of task."""


class Session:
    """A run from one change of its adapters to the next."""

    def __init__(
        self,
        run: RunConfig,
        num_joined: int,
        records: dict[str, JobRecords],
        rank: int,
        world_size: int,
        on_checkpoint: CheckpointHook | None,
        adapt: Adapt = AdaptedModel,
        on_evaluation: EvaluationHook | None = None,
    ) -> None:
        self._config = run
        self._adapt = adapt
        self._num_joined = num_joined
        self._rank, self._world_size = rank, world_size
        self._on_checkpoint = on_checkpoint
        self._on_evaluation = on_evaluation
        tokenizer = load_tokenizer(run.base)
        self._data = [JobData(run, job, records[job.name], tokenizer) for job in run.jobs]
        for data, job in zip(self._data, run.jobs, strict=True):
            data.check(job.training.steps)
        self._copies = copies_of(run) if rank == 0 else None
        self._trained: Trained | None = None

    def run(self) -> RunResult | None:
        """Train to the end and return the result, or None if an adapter is waiting to join."""
        run, task = self._config, self._data[0].task
        torch.manual_seed(run.seed)
        base = load_base(run.base, task.auto_model, run.deepspeed, task.model_options())
        if run.batching.packing:
            check_packs(base, task.peft_type)
        self._identity = run_identity(run, fingerprint_of(run.base))
        progress = self._read_progress()
        if progress is not None and not progress.training and self._was_written():
            return read_result(run.output_dir)
        num_parameters = sum(getattr(p, "ds_numel", p.numel()) for p in base.parameters())
        adapted = self._adapt(base, run, task.peft_type)
        self._sizes = [
            sum(getattr(p, "ds_numel", p.numel()) for p in one.values())
            for one in adapted.parameters.values()
        ]
        settings = {name: job.training for name, job in zip(adapted.names, run.jobs, strict=True)}
        engine, optimizer = start_engine(adapted.model, adapted.parameters, settings, run.deepspeed)
        self._trained = trained = Trained(engine, optimizer, adapted)
        with self._watcher(num_parameters) as watcher:
            if progress is not None:
                checkpoint = latest_checkpoint(run.output_dir)
                assert checkpoint is not None
                load_checkpoint(trained, checkpoint)
                scale, optimizer.scale.good_steps = progress.loss_scale
                optimizer.scale.value = scale
                watcher.note(f"continues from {checkpoint}")
            else:
                jobs = tuple(JobProgress() for _ in run.jobs)
                progress = Progress(loss_scale=(optimizer.scale.value, 0), jobs=jobs)
            progress = self._evaluate_bases(progress, watcher)
            progress, is_waiting = self._train(progress, watcher)
        if is_waiting:
            return None
        result = RunResult(
            name=run.name,
            adapters=tuple(job.result for job in progress.jobs if job.result is not None),
            steps=progress.step,
            train_seconds=progress.seconds,
        )
        if self._rank == 0:
            write_result(result, run.output_dir)
        torch.distributed.barrier()
        return result

    def close(self) -> None:
        """Let go of the engine, its memory and its hooks."""
        if self._trained is not None:
            stop_engine(self._trained.engine)
            self._trained = None

    def _read_progress(self) -> Progress | None:
        checkpoint = latest_checkpoint(self._config.output_dir)
        if checkpoint is None:
            return None
        jobs = self._config.jobs
        joined = {job.name for job in jobs[len(jobs) - self._num_joined :]}
        progress = read_progress(checkpoint, self._identity, joined)
        fresh = len(jobs) - len(progress.jobs)
        return replace(progress, jobs=(*progress.jobs, *[JobProgress()] * fresh))

    def _was_written(self) -> bool:
        return (self._config.output_dir / RESULT_FILE).exists()

    def _evaluate_bases(self, progress: Progress, watcher: Watcher) -> Progress:
        """Scores of the bare base, for the adapters that have none yet."""
        for index, job in enumerate(progress.jobs):
            if job.base_scores is not None:
                continue
            scores: dict[str, float] = {}
            if not self._data[index].task.has_head:
                measured = self._evaluate(index, bare=True)
                scores = dict(measured.values)
                self._tell(watcher, index, 0, measured)
            progress = progress.with_job(index, base_scores=scores)
        return progress

    def _train(self, progress: Progress, watcher: Watcher) -> tuple[Progress, bool]:
        assert self._trained is not None
        run, optimizer = self._config, self._trained.optimizer
        pack_lengths = None
        if run.batching.packing:
            pack_lengths = {i: job.data.max_length for i, job in enumerate(run.jobs)}
        step = TrainStep(
            self._trained.engine,
            optimizer,
            self._trained.adapted,
            self._data[0].task,
            Passes(self._rank, self._world_size, run.batching.micro_batch_size, pack_lengths),
        )
        while progress.training:
            began = time.perf_counter()
            jobs = progress.training
            rows = {i: self._data[i].rows(progress.jobs[i].step) for i in jobs}
            rates = {i: learning_rate(run.jobs[i].training, progress.jobs[i].step) for i in jobs}
            seed_step(run.seed, progress.step, self._rank)
            queued = count_queued(run.output_dir) if self._rank == 0 else 0
            losses, queued = step(rows, rates, queued)
            self._trained.adapted.after_step(progress.step + 1)
            optimizer.scale.update(bool(optimizer.not_finite))
            seconds = time.perf_counter() - began
            progress = replace(
                progress,
                step=progress.step + 1,
                seconds=progress.seconds + seconds,
                loss_scale=(optimizer.scale.value, optimizer.scale.good_steps),
            )
            told = {}
            for i in jobs:
                tokens = sum(len(row) for row in rows[i])
                job = progress.jobs[i]
                progress = progress.with_job(i, step=job.step + 1, tokens=job.tokens + tokens)
                told[run.jobs[i].name] = AdapterStep(job.step + 1, losses[i], rates[i], tokens)
            watcher.step(progress.step, told, seconds)
            before = progress.training
            for i in jobs:
                progress = self._after_step(progress, i, losses[i], watcher)
            left = progress.training != before
            is_waiting = queued > self._num_joined
            if progress.step % run.checkpoints.every == 0 or left or is_waiting:
                self._save(progress, watcher)
            if is_waiting:
                return progress, True
        return progress, False

    def _after_step(
        self, progress: Progress, index: int, loss: float, watcher: Watcher
    ) -> Progress:
        """Evaluate an adapter if it is due, and let it go if it is done."""
        training, job = self._config.jobs[index].training, progress.jobs[index]
        if loss != loss or loss in (float("inf"), float("-inf")):
            self._tell_divergence(index, loss, watcher)
            return self._finish(progress, index, "diverged", watcher)
        is_last = job.step == training.steps
        every = training.eval_every
        if not is_last and (every is None or job.step % every):
            return progress
        scores = self._evaluate(index)
        self._tell(watcher, index, job.step, scores)
        stop = training.early_stop
        if stop is not None:
            best = job.best_score
            if best is None or scores.main > best + stop.min_delta:
                assert self._trained is not None
                keep_best(self._trained, self._config.output_dir, index, self._rank)
                progress = progress.with_job(
                    index, best_score=scores.main, best_step=job.step, worse_evaluations=0
                )
            else:
                progress = progress.with_job(index, worse_evaluations=job.worse_evaluations + 1)
            if progress.jobs[index].worse_evaluations >= stop.patience and not is_last:
                return self._finish(progress, index, "stopped", watcher)
        return self._finish(progress, index, "finished", watcher, scores) if is_last else progress

    def _finish(
        self,
        progress: Progress,
        index: int,
        status: Any,
        watcher: Watcher,
        scores: Scores | None = None,
    ) -> Progress:
        """Save and publish an adapter, the best one that there was, and take it out of the run."""
        assert self._trained is not None
        trained, run = self._trained, self._config
        job = progress.jobs[index]
        if job.best_step is not None and job.best_step != job.step:
            load_best(trained, run.output_dir, index)
            scores = self._evaluate(index)
        weights = optimizer_state.full_weights(
            trained.engine, trained.adapted.parameters[trained.adapted.names[index]]
        )
        result = None
        if self._rank == 0:
            result = finish_adapter(
                run,
                index,
                replace(job, status=status),
                trained.adapted,
                weights,
                scores,
                trivial_score=self._data[index].trivial_score,
                num_test=len(self._data[index].test),
                trainable_parameters=self._sizes[index],
                identity=self._identity,
                note=watcher.note,
            )
        return progress.with_job(index, status=status, result=from_rank_0(result))

    def _save(self, progress: Progress, watcher: Watcher) -> None:
        assert self._trained is not None
        path = save_checkpoint(
            self._trained,
            self._config.output_dir,
            progress,
            self._identity,
            self._config.checkpoints.keep,
        )
        if self._copies is not None:
            try:
                self._copies.push(path)
            except PropulsionError as error:
                # The checkpoint itself is there, and the next one may be copied.
                watcher.note(f"{path.name} is not copied: {error}")
        if self._on_checkpoint is not None:
            self._on_checkpoint(path, progress)

    def _evaluate(self, index: int, *, bare: bool = False) -> Scores:
        assert self._trained is not None
        data = self._data[index]
        with self._trained.adapted.only(None if bare else index):
            return evaluate(
                self._trained.engine.module,
                data.task,
                data.test,
                batch_size=self._config.evaluation.batch_size,
                rank=self._rank,
                world_size=self._world_size,
                partitioned=self._config.deepspeed.stage == 3,
            )

    def _tell(self, watcher: Watcher, index: int, step: int, scores: Scores) -> None:
        name = self._config.jobs[index].name
        watcher.evaluation(name, step, scores, self._data[index].trivial_score)
        if self._on_evaluation is not None:
            self._on_evaluation(name, step, scores)

    def _tell_divergence(self, index: int, loss: float, watcher: Watcher) -> None:
        message = (
            f"{self._config.jobs[index].name}: the loss is {loss}; lower training.lr (z^k moves "
            "degree times as fast as z), or check the base model"
        )
        if len(self._config.jobs) == 1:
            raise ConfigError(f"{message}. The last checkpoint is intact")
        watcher.note(f"{message}. It leaves the run, the others go on")

    @contextlib.contextmanager
    def _watcher(self, num_parameters: int) -> Iterator[Watcher]:
        run = self._config
        if self._rank != 0:
            yield SilentWatcher()
            return
        peak = peak_flops()
        with RunWatcher(
            run.name,
            run.output_dir,
            max(job.training.steps for job in run.jobs),
            run.metrics_port,
            run.tensorboard,
            model_flops(num_parameters, 1),
            None if peak is None else peak * self._world_size,
            run.metrics_host,
            run.metrics_targets,
        ) as watcher:
            yield watcher
