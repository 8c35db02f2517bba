"""The report as Markdown: `report.md.jinja`, every number of it from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.simulation.plots import LABELS, cost_of
from cluster.serving.affinity import AffinityConfig

_QUANTILES = (
    ("ttft_p50_seconds", "time to first token, p50"),
    ("ttft_p99_seconds", "time to first token, p99"),
    ("inter_token_p50_seconds", "time between tokens, p50"),
    ("inter_token_p99_seconds", "time between tokens, p99"),
)
_SHARES = (
    ("host_hit_rate", "adapter in host memory"),
    ("slot_hit_rate", "adapter in a slot as it joins"),
    ("busier_replica_share", "share of the busier replica"),
)


def write_document(result: Mapping[str, Any], folder: str) -> str:
    """The report; `folder` is where its pictures lie, relative to it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cost": cost_of,
        "listed": _listed,
        "ms": lambda seconds, digits=1: f"{1000 * seconds:,.{digits}f}",
        "named": LABELS.__getitem__,
        "percent": lambda share, digits=1: f"{100 * share:.{digits}f} %",
    }
    template = environment.get_template("report.md.jinja")
    return template.render(
        **result,
        folder=folder,
        names=LABELS,
        quantiles=_QUANTILES,
        shares=_SHARES,
        default_free_queue=AffinityConfig().free_queue,
    )


def _listed(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
