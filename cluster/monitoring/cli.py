"""The command `propulsion cluster monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.monitoring.config import MonitorConfig, monitor_config


def _option(name: str, *declared: str) -> Any:
    return typer.Option(*declared, help=MonitorConfig.model_fields[name].description)


_DEFAULTS = MonitorConfig()


def monitor(
    server: Annotated[list[str] | None, _option("servers")] = None,
    gateway: Annotated[list[str] | None, _option("gateways")] = None,
    trainer: Annotated[list[str] | None, _option("trainers")] = None,
    queue: Annotated[list[str] | None, _option("queues")] = None,
    ray_dir: Annotated[Path, _option("ray_dir")] = _DEFAULTS.ray_dir,
    credentials_file: Annotated[Path | None, _option("credentials_file")] = None,
    data_dir: Annotated[Path, _option("data_dir")] = _DEFAULTS.data_dir,
    port: Annotated[int, _option("port")] = _DEFAULTS.port,
    alertmanager_port: Annotated[int, _option("alertmanager_port")] = _DEFAULTS.alertmanager_port,
    grafana_port: Annotated[int, _option("grafana_port")] = _DEFAULTS.grafana_port,
    time_scale: Annotated[float, _option("time_scale")] = _DEFAULTS.time_scale,
) -> None:
    """Watch servers, trainers and the cluster with Prometheus, and Grafana if it is installed.

    All of it listens on loopback, with the scrape configuration, rules and dashboards that ship
    with the project.
    """
    config = monitor_config(
        servers=tuple(server or ()),
        gateways=tuple(gateway or ()),
        trainers=tuple(trainer or ()),
        queues=tuple(queue or ()),
        ray_dir=ray_dir,
        credentials_file=credentials_file,
        data_dir=data_dir,
        port=port,
        alertmanager_port=alertmanager_port,
        grafana_port=grafana_port,
        time_scale=time_scale,
    )
    # Imported here so that `--help` and a wrong option answer at once.
    from cluster.monitoring.monitor import monitor as watch

    watch(config)
