"""From the sections of a run file to the jobs that they describe."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from propulsion.errors import ConfigError

JOB_SECTIONS = ("seed", "adapter", "data", "training", "publish")


def job_trees(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A mapping for each adapter that a run file's `adapters` and `sweep` ask for.

    What an adapter does not set it takes from the file's own sections; a mapping that chooses a
    kind (`format`, `type`) of its own replaces the file's whole.

    Raises:
        ConfigError: an adapter or the sweep sets a key that is not an adapter's own.
    """
    defaults = {key: tree[key] for key in JOB_SECTIONS if tree.get(key) is not None}
    jobs = [{**defaults, "name": tree.get("name")}]
    if tree.get("adapters"):
        jobs = []
        for name, changes in tree["adapters"].items():
            _check_keys(f"adapters.{name}", changes or {})
            jobs.append({**merge(defaults, changes or {}), "name": name})
    return [swept for job in jobs for swept in _sweep(job, tree.get("sweep") or {})]


def merge(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with `changes` put over them, section by section."""
    merged = dict(defaults)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and not _is_other(value):
            merged[key] = merge(before, value)
        else:
            merged[key] = value
    return merged


def _is_other(value: Mapping[str, Any]) -> bool:
    return "format" in value or "type" in value


def _sweep(job: dict[str, Any], sweep: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        swept = job
        for path, value in chosen.items():
            section, *inner = path.split(".")
            _check_keys("sweep", [section])
            for key in reversed(inner):
                value = {key: value}
            swept = merge(swept, {section: value})
        parts = (f"{path.rpartition('.')[2]}-{_spelled(value)}" for path, value in chosen.items())
        yield {**swept, "name": "-".join([str(job["name"]), *parts])}


def _spelled(value: Any) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in str(value))


def _check_keys(where: str, keys: Any) -> None:
    unknown = [key for key in keys if key not in JOB_SECTIONS]
    if unknown:
        raise ConfigError(
            f"{where}: {', '.join(map(repr, unknown))} cannot differ between the adapters of a "
            f"run; these can: {', '.join(JOB_SECTIONS)}"
        )
