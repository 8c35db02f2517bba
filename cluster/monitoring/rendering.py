"""Writes the configuration of Prometheus, Alertmanager and Grafana for what is to be watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cluster.monitoring.config import MonitorConfig
from cluster.monitoring.time_scale import scale_duration, scale_rules

SHIPPED = Path(__file__).parent
"""Folder of the files that ship with the project."""

RAY_TARGETS = "prom_metrics_service_discovery.json"
_REPLICAS = "propulsion-replicas"
_SERVING = "propulsion-serving"


def render(config: MonitorConfig, alertmanager: bool = False) -> Path:
    """Fill `config.data_dir`; what an earlier call wrote is replaced, targets of runs are kept.

    Args:
        config: what to watch.
        alertmanager: whether one runs on `config.alertmanager_port`, to be told of alerts.

    Returns:
        Prometheus' configuration file.
    """
    folder = config.data_dir.resolve()
    targets = folder / "targets"
    targets.mkdir(parents=True, exist_ok=True)
    for role in ("server", "gateway", "trainer", "queue"):
        _write_yaml(targets / f"{role}s.yaml", _targets(role, getattr(config, f"{role}s")))
    managers = [f"127.0.0.1:{config.alertmanager_port}"] if alertmanager else []
    _write_yaml(folder / "alertmanagers.yaml", [{"targets": managers}])
    shutil.copyfile(SHIPPED / "alertmanager.yaml", folder / "alertmanager.yaml")
    _write_rules(folder / "rules", config.time_scale)
    path = folder / "prometheus.yaml"
    _write_yaml(path, prometheus_settings(config))
    return path


def prometheus_settings(config: MonitorConfig) -> dict[str, Any]:
    """The shipped configuration with gateways, Ray's folder, key and time scale put in."""
    settings: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    discovery = jobs[_REPLICAS]["http_sd_configs"][0]
    jobs[_REPLICAS]["http_sd_configs"] = [
        {**discovery, "url": f"{gateway}/metrics/targets"} for gateway in config.gateways
    ]
    jobs["ray"]["file_sd_configs"][0]["files"] = [str(config.ray_dir.resolve() / RAY_TARGETS)]
    if config.credentials_file is not None:
        file = str(config.credentials_file.resolve())
        # The type is the default, and Prometheus 2.42 forgets it where it discovers targets.
        key = {"authorization": {"type": "Bearer", "credentials_file": file}}
        jobs[_SERVING] |= key
        jobs[_REPLICAS] |= key
        for gateway in jobs[_REPLICAS]["http_sd_configs"]:
            gateway |= key
    if not config.gateways:
        del jobs[_REPLICAS]
    settings["scrape_configs"] = list(jobs.values())
    if config.time_scale != 1:
        _scale_intervals(settings, config.time_scale)
    return settings


def _scale_intervals(settings: dict[str, Any], factor: float) -> None:
    shared = settings["global"]
    for name in ("scrape_interval", "evaluation_interval"):
        shared[name] = scale_duration(shared[name], factor)
    # Targets do not answer faster, so a scrape gets all the time until the next one.
    shared["scrape_timeout"] = shared["scrape_interval"]
    for job in settings["scrape_configs"]:
        for discovery in (*job.get("file_sd_configs", ()), *job.get("http_sd_configs", ())):
            discovery["refresh_interval"] = scale_duration(discovery["refresh_interval"], factor)


def _targets(role: str, urls: Iterable[str]) -> list[Mapping[str, Any]]:
    groups = []
    for url in urls:
        parts = urlsplit(url)
        labels = {"role": role}
        if parts.scheme != "http":
            labels["__scheme__"] = parts.scheme
        groups.append({"targets": [parts.netloc], "labels": labels})
    return groups


def _write_rules(folder: Path, factor: float) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted((SHIPPED / "rules").glob("*.yaml")):
        if factor == 1:
            shutil.copyfile(path, folder / path.name)
        else:
            _write_yaml(folder / path.name, scale_rules(yaml.safe_load(path.read_text()), factor))


def _write_yaml(path: Path, content: Any) -> None:
    # Prometheus may read at any time.
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(yaml.safe_dump(content, sort_keys=False, width=1000), encoding="utf-8")
    fresh.replace(path)
