"""Puts a trained adapter into the store, once, and moves its aliases if it passes its gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import AdapterNotFoundError
from trainer.config import JobConfig
from trainer.gate import metric_key, why_not


def publish_adapter(
    job: JobConfig,
    folder: Path,
    identity: dict[str, Any],
    metric: str,
    scores: Mapping[str, float],
    base_score: float | None,
) -> tuple[str, str]:
    """Publish a trained adapter, and let its aliases move to it if it passes its gate.

    A job that lost a node between publishing and its next checkpoint comes here twice; the version
    that it has published is then the answer.

    Args:
        job: the adapter; it has a section `publish`.
        folder: the saved adapter.
        identity: of the run.
        metric: the score that the gate looks at.
        scores: on the test records.
        base_score: of the bare base; None where it has none.

    Returns:
        Its reference, and why it did not pass its gate, or "".
    """
    publish = job.publish
    assert publish is not None
    store, name = AdapterStore(publish.store), publish.name or job.name
    held_back = ""
    if publish.gate is not None:
        held_back = why_not(publish.gate, metric, scores[metric], base_score, store, name)
    version = _published_before(store, name, publish.lineage)
    if version is None:
        version = store.publish(
            folder,
            name,
            base_fingerprint=identity["base"],
            metrics={metric_key(one): value for one, value in scores.items()},
            training_config={
                **identity,
                "adapters": {job.name: identity["adapters"][job.name]},
                "lineage": publish.lineage,
            },
            aliases=[] if held_back else publish.aliases,
        )
    return version.reference, held_back


def _published_before(
    store: AdapterStore, name: str, lineage: Mapping[str, str]
) -> AdapterVersion | None:
    """The newest version, if the same job has published it."""
    if "job" not in lineage:
        return None
    try:
        newest = store.versions(name)[-1]
    except AdapterNotFoundError:
        return None
    return newest if newest.manifest.training_config.get("lineage") == lineage else None
