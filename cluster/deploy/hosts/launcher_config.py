"""What Ray's launcher is told about a list of hosts."""

from __future__ import annotations

import shlex
from typing import Any

from cluster.deploy.hosts.config import HostsConfig

_REMOTE_TOKEN = "~/.ray/auth_token"
_BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"


def launcher_config(config: HostsConfig) -> dict[str, Any]:
    """The configuration of `ray up` for machines of one's own.

    Every Ray process asks for the token, and the dashboard listens on the head's loopback alone.
    """
    return {
        "cluster_name": config.name,
        "provider": {
            "type": "local",
            "head_ip": config.head,
            "worker_ips": list(config.workers),
        },
        "auth": {"ssh_user": config.user, "ssh_private_key": str(config.key)},
        "min_workers": len(config.workers),
        "max_workers": len(config.workers),
        "file_mounts": {
            _REMOTE_TOKEN: str(config.token_file),
            **{remote: str(local) for remote, local in config.files.items()},
        },
        "setup_commands": [*config.setup, in_environment(config, "propulsion --version")],
        "head_start_ray_commands": [
            in_environment(config, "ray stop"),
            in_environment(
                config,
                shlex.join(_start(config, "--head", *_head(config)))
                + f" --autoscaling-config={_BOOTSTRAP_CONFIG}",
            ),
        ],
        "worker_start_ray_commands": [
            in_environment(config, "ray stop"),
            in_environment(
                config, shlex.join(_start(config)) + f" --address=$RAY_HEAD_IP:{config.port}"
            ),
        ],
    }


def in_environment(config: HostsConfig, command: str) -> str:
    """A shell command of a host, run in its Python environment with the variables of Ray."""
    variables = {**config.environment, "RAY_AUTH_MODE": "token"}
    exports = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return f"export PATH={config.python}/bin:$PATH {' '.join(exports)}; {command}"


def _head(config: HostsConfig) -> list[str]:
    return [
        f"--port={config.port}",
        f"--node-ip-address={config.head}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={config.dashboard_port}",
    ]


def _start(config: HostsConfig, *options: str) -> list[str]:
    command = ["ray", "start", *options, "--disable-usage-stats"]
    if config.object_store_bytes is not None:
        command.append(f"--object-store-memory={config.object_store_bytes}")
    return command
