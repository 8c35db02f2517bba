"""Reads a run file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from adapters.backends.location import protocol_of
from propulsion.errors import ConfigError
from trainer.config.expansion import JOB_SECTIONS, job_trees
from trainer.config.run import JobConfig, RunConfig, RunFile
from trainer.config.section import Section


def load_run(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a run file.

    Args:
        path: the YAML file.
        overrides: `section.key=value` settings that replace the file's, values in YAML.

    Raises:
        ConfigError: the file is missing or not YAML, or a key is unknown, missing or wrong.
    """
    path = Path(path)
    tree = read_tree(path)
    for override in overrides or []:
        _apply_override(tree, override)
    problems = _Problems(path)
    file = problems.check(RunFile, tree)
    problems.raise_if_any()
    jobs = [
        problems.check(JobConfig, {"seed": file.seed, **job}, prefix=_prefix(tree, job["name"]))
        for job in job_trees(tree)
    ]
    problems.raise_if_any()
    settings = {
        name: getattr(file, name)
        for name in RunConfig.model_fields
        if name in RunFile.model_fields and name not in JOB_SECTIONS
    }
    try:
        run = RunConfig(**settings, seed=file.seed, jobs=jobs)
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}") from error
    return _resolve_paths(run, path.resolve().parent)


def load_job(path: str | Path, seed: int = 0) -> JobConfig:
    """Read the file of one adapter that is to join a run: the sections of a run file's adapter.

    Raises:
        ConfigError: as `load_run`.
    """
    path = Path(path)
    problems = _Problems(path)
    job = problems.check(JobConfig, {"seed": seed, **read_tree(path)})
    problems.raise_if_any()
    resolve_job_paths(job, path.resolve().parent)
    return job


def read_tree(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such run file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: a folder, not a run file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys, found {type(tree).__name__}")
    return tree


def _prefix(tree: dict[str, Any], name: Any) -> str:
    several = bool(tree.get("adapters") or tree.get("sweep"))
    return f"adapters.{name}." if several else ""


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes section.key=value, got {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {parent!r} is not a section")
    tree[last] = yaml.safe_load(value)


def _resolve_paths(run: RunConfig, folder: Path) -> RunConfig:
    run.output_dir = folder / run.output_dir
    if run.deepspeed.nvme_path is not None:
        run.deepspeed.nvme_path = folder / run.deepspeed.nvme_path
    if run.metrics_targets is not None:
        run.metrics_targets = folder / run.metrics_targets
    for job in run.jobs:
        resolve_job_paths(job, folder)
    if (folder / run.base).exists() or run.base.startswith("."):
        run.base = str((folder / run.base).resolve())
    return run


def resolve_job_paths(job: JobConfig, folder: Path) -> None:
    """Make the paths of a job absolute, as seen from `folder`."""
    job.data.resolve_paths(folder)
    if job.publish is not None and not protocol_of(job.publish.store):
        job.publish.store = str(folder / job.publish.store)


class _Problems:
    """Collects what is wrong in a file, to tell all of it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def check(self, model: type[Any], tree: dict[str, Any], prefix: str = "") -> Any:
        try:
            return model.model_validate(tree)
        except ValidationError as error:
            self._lines += [_describe(problem, prefix) for problem in error.errors()]
            return None

    def raise_if_any(self) -> None:
        lines = list(dict.fromkeys(self._lines))
        if lines:
            text = "\n".join(f"  {line}" for line in lines)
            raise ConfigError(f"{self._path}: {len(lines)} problem(s)\n{text}")


def _describe(problem: Any, prefix: str) -> str:
    where = prefix + ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}"
    close = difflib.get_close_matches(str(problem["loc"][-1]), _known_keys(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{where}: unknown key{hint}"


def _known_keys() -> list[str]:
    sections: list[type[BaseModel]] = Section.__subclasses__()
    return sorted({key for section in sections for key in section.model_fields})
