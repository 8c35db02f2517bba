"""Lists a run for Prometheus' file discovery while it goes on."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from pathlib import Path

from propulsion.errors import ConfigError


def list_target(folder: Path, run: str, host: str, port: int) -> Path:
    """Write `folder/<run>.json`, which tells Prometheus where the run's metrics are.

    Args:
        folder: read by Prometheus; made if it is missing.
        run: name of the run.
        host: address that the metrics are served on; of a wildcard, this machine's is listed.
        port: port of it.

    Returns:
        The file, to be deleted when the run has come to its end.

    Raises:
        ConfigError: the folder cannot be written.
    """
    path = folder / f"{run}.json"
    group = {"targets": [_address(host, port)], "labels": {"role": "trainer", "run": run}}
    # Prometheus may read at any time.
    fresh = path.with_suffix(".json.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps([group]) + "\n", encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        raise ConfigError(
            f"metrics_targets {folder} cannot be written: {error.strerror}"
        ) from error
    return path


def _address(host: str, port: int) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{host}:{port}"
    if address.is_unspecified:
        return f"{socket.gethostbyname(socket.gethostname())}:{port}"
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
