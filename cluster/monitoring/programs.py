"""Prometheus, Alertmanager and Grafana: what they are called and how they are started."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.monitoring.config import MonitorConfig
from cluster.monitoring.rendering import SHIPPED
from propulsion.errors import PropulsionError

_LOOPBACK = "127.0.0.1"
_GRAFANA_HOME = Path("/usr/share/grafana")


@dataclass(frozen=True)
class Program:
    """A program to run beside others.

    Attributes:
        name: for people.
        command: with its arguments.
        port: loopback port that it will listen on.
        ready_path: what it answers with 200 once it is ready.
        environment: what it gets besides this process's.
    """

    name: str
    command: tuple[str, ...]
    port: int
    ready_path: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://{_LOOPBACK}:{self.port}"


def find_prometheus() -> str:
    """Path of Prometheus.

    Raises:
        PropulsionError: it is not installed.
    """
    found = shutil.which("prometheus")
    if found is None:
        raise PropulsionError(
            "prometheus is not on PATH: install it (on Debian and Ubuntu `apt-get install "
            "prometheus`, elsewhere from https://prometheus.io/download/)"
        )
    return found


def find_alertmanager() -> str | None:
    """Path of Alertmanager, under Debian's name or its own; None if it is not installed."""
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def find_grafana() -> str | None:
    """Path of Grafana's server; None if it is not installed."""
    return shutil.which("grafana-server")


def prometheus(path: str, config: MonitorConfig, settings: Path) -> Program:
    """Prometheus with the configuration file `settings`."""
    command = (
        path,
        f"--config.file={settings}",
        f"--storage.tsdb.path={_data(config, 'prometheus')}",
        f"--web.listen-address={_LOOPBACK}:{config.port}",
    )
    return Program("Prometheus", command, config.port, "/-/ready")


def alertmanager(path: str, config: MonitorConfig) -> Program:
    """Alertmanager, on its own without peers."""
    command = (
        path,
        f"--config.file={config.data_dir.resolve() / 'alertmanager.yaml'}",
        f"--storage.path={_data(config, 'alertmanager')}",
        f"--web.listen-address={_LOOPBACK}:{config.alertmanager_port}",
        "--cluster.listen-address=",
    )
    return Program("Alertmanager", command, config.alertmanager_port, "/-/ready")


def grafana(path: str, config: MonitorConfig) -> Program:
    """Grafana with our dashboards, which anybody on this machine may look at."""
    environment = {
        "GF_SERVER_HTTP_ADDR": _LOOPBACK,
        "GF_SERVER_HTTP_PORT": str(config.grafana_port),
        "GF_PATHS_DATA": str(_data(config, "grafana")),
        "GF_PATHS_LOGS": str(_data(config, "grafana") / "log"),
        "GF_PATHS_PROVISIONING": str(SHIPPED / "grafana" / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "PROPULSION_DASHBOARDS": str(SHIPPED / "dashboards"),
        "PROPULSION_PROMETHEUS_URL": f"http://{_LOOPBACK}:{config.port}",
    }
    # Where its packages put what it needs besides the program; elsewhere it finds that itself.
    home = ("--homepath", str(_GRAFANA_HOME)) if _GRAFANA_HOME.is_dir() else ()
    return Program("Grafana", (path, *home), config.grafana_port, "/api/health", environment)


def _data(config: MonitorConfig, name: str) -> Path:
    return config.data_dir.resolve() / "data" / name
