"""Decides whether a trained adapter is good enough for the aliases that serving follows."""

from __future__ import annotations

from adapters import AdapterStore
from propulsion.errors import AdapterNotFoundError
from trainer.config.gate import GateSection


def why_not(
    gate: GateSection,
    metric: str,
    score: float,
    base_score: float | None,
    store: AdapterStore,
    name: str,
) -> str:
    """Which condition a score does not meet, or "" if it meets all.

    Args:
        gate: the conditions.
        metric: the score's name.
        score: of the adapter; higher is better.
        base_score: of the bare base; None where it has none.
        store: where the adapter's earlier versions are.
        name: of the adapter in the store.

    Raises:
        AdapterCorruptError, StoreUnavailableError: the present version cannot be read.
    """
    if gate.at_least is not None and not score >= gate.at_least:
        return f"{metric} {score:.4f} is below {gate.at_least:g}"
    if gate.above_base is not None:
        if base_score is None:
            return f"the base has no {metric} to be above: use at_least"
        if not score >= base_score + gate.above_base:
            return (
                f"{metric} {score:.4f} is not {gate.above_base:g} above the base's {base_score:.4f}"
            )
    if gate.no_worse_than is not None:
        reference = f"{name}@{gate.no_worse_than}"
        try:
            present = store.resolve(reference)
        except AdapterNotFoundError:
            return ""
        reached = present.manifest.metrics.get(metric_key(metric))
        if not isinstance(reached, int | float):
            return f"{present.reference}, which is {reference}, has no {metric} to compare with"
        if not score >= reached:
            return (
                f"{metric} {score:.4f} is below the {reached:.4f} of {present.reference}, which is "
                f"{reference}"
            )
    return ""


def metric_key(metric: str) -> str:
    """What a score on the test records is called in a manifest."""
    return f"test_{metric}"
