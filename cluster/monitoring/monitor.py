"""Starts what there is of Prometheus, Alertmanager and Grafana on this machine, with our files."""

from __future__ import annotations

import sys

from cluster.monitoring import programs
from cluster.monitoring.config import MonitorConfig
from cluster.monitoring.rendering import render
from cluster.monitoring.running import running, stop_signal, wait_for_stop


def monitor(config: MonitorConfig) -> None:
    """Watch until Ctrl-C or SIGTERM.

    Raises:
        PropulsionError: Prometheus is missing, or a program does not start or ends by itself.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    prometheus = programs.find_prometheus()
    alertmanager, grafana = programs.find_alertmanager(), programs.find_grafana()
    settings = render(config, alertmanager=alertmanager is not None)
    started = [programs.prometheus(prometheus, config, settings)]
    if alertmanager is not None:
        started.append(programs.alertmanager(alertmanager, config))
    if grafana is not None:
        started.append(programs.grafana(grafana, config))
    logs = config.data_dir / "logs"
    with stop_signal() as stop, running(started, logs) as processes:
        for program in started:
            console.print(f"[bold]{program.name}[/] {program.url}")
        for name, found in (("Alertmanager", alertmanager), ("Grafana", grafana)):
            if found is None:
                console.print(f"[bold]{name}[/] is not installed")
        console.print(f"targets [bold]{config.data_dir / 'targets'}[/], logs [bold]{logs}[/]")
        console.print("Ctrl-C stops")
        sys.stderr.flush()
        wait_for_stop(stop, started, processes, logs)
    console.print("stopped")
