"""All dashboards, and their files."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.monitoring.panels.cluster import CLUSTER
from cluster.monitoring.panels.grafana import dashboard_json
from cluster.monitoring.panels.serving import SERVING
from cluster.monitoring.panels.training import TRAINING

DASHBOARDS = (SERVING, TRAINING, CLUSTER)
FOLDER = Path(__file__).parents[1] / "dashboards"


def dashboard_files() -> dict[Path, str]:
    """Each dashboard's file and what it is to hold."""
    return {
        FOLDER / f"{dashboard.uid.removeprefix('propulsion-')}.json": json.dumps(
            dashboard_json(dashboard), indent=2
        )
        + "\n"
        for dashboard in DASHBOARDS
    }
