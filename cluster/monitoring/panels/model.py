"""What a dashboard is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap"]


@dataclass(frozen=True)
class Query:
    """A PromQL expression and, in Grafana's `{{label}}` notation, what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        title: above it.
        description: what it shows and when to worry.
        queries: what it draws.
        unit: Grafana's name of the unit: s, reqps, percentunit, bytes, short, none.
        kind: how it is drawn.
        width: of Grafana's 24 columns.
        requires: what must be there for it to show anything, besides what the dashboard is about.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    requires: str = ""


@dataclass(frozen=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard.

    Attributes:
        name: in queries, `$name`.
        query: of its values, in Grafana's `label_values(…)` notation.
        several: whether more than one, or all, can be chosen.
    """

    name: str
    query: str
    several: bool = True


@dataclass(frozen=True)
class Dashboard:
    """A page.

    Attributes:
        uid: of its address, and name of its file.
        title: of the page.
        component: whose alerts it marks: serving, training or cluster.
        variables: choices at its top.
        rows: from top to bottom.
    """

    uid: str
    title: str
    component: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]


def quantiles(metric: str, by: str, matchers: str) -> tuple[Query, ...]:
    """Median and 99th percentile of a histogram, by labels."""
    buckets = f"sum by ({by}, le) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    name = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return tuple(
        Query(f"histogram_quantile({share}, {buckets})", f"{name} {text}")
        for share, text in ((0.5, "p50"), (0.99, "p99"))
    )
