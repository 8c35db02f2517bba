"""Turns a declared dashboard into the JSON that Grafana 10 and later read."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from cluster.monitoring.panels.model import Dashboard, Panel, Variable

_COLUMNS = 24
_HEIGHT = {"stat": 4, "timeseries": 8, "heatmap": 8}
_SCHEMA_VERSION = 38
_SOURCE = {"type": "prometheus", "uid": "$datasource"}


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana's provisioning reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["propulsion"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source_choice(), *map(_choice, dashboard.variables)]},
        "annotations": {"list": [_alerts(dashboard.component)]},
        "panels": list(_panels(dashboard)),
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in dashboard.rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, height = 0, y + height, 0
            number += 1
            size = {"w": panel.width, "h": _HEIGHT[panel.kind]}
            yield _panel(panel, number, {"x": x, "y": y, **size})
            x, height = x + panel.width, max(height, _HEIGHT[panel.kind])
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    needs = f" Needs {panel.requires}." if panel.requires else ""
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description + needs,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": letter,
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "range": panel.kind != "stat",
                "instant": panel.kind == "stat",
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            }
            for letter, query in zip(ascii_uppercase, panel.queries, strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    if panel.kind != "timeseries":
        return {"unit": panel.unit}
    custom = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    return {"unit": panel.unit, "min": 0, "custom": custom}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none"}
    if panel.kind == "heatmap":
        axis = {"unit": panel.unit, "axisPlacement": "left"}
        return {"calculate": False, "yAxis": axis, "cellGap": 1}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _source_choice() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }


def _choice(variable: Variable) -> dict[str, Any]:
    choice = {
        "name": variable.name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "definition": variable.query,
        "refresh": 2,
        "sort": 1,
        "multi": variable.several,
        "includeAll": variable.several,
        "hide": 0,
    }
    if variable.several:
        choice |= {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
    return choice


def _alerts(component: str) -> dict[str, Any]:
    """Marks the times at which an alert fired."""
    return {
        "name": "Alerts",
        "enable": True,
        "iconColor": "red",
        "datasource": _SOURCE,
        "expr": f'ALERTS{{alertstate="firing", component="{component}"}}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }
