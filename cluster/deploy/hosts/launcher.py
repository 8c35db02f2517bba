"""Starts and stops a cluster of hosts by `ray up` and `ray down`."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from cluster.deploy.hosts.config import HostsConfig
from cluster.deploy.hosts.launcher_config import in_environment, launcher_config
from cluster.deploy.hosts.login import check_hosts, run_on_host, ssh_command
from propulsion.errors import PropulsionError


class LauncherError(PropulsionError):
    """Ray's launcher failed; what it printed says why."""


def start_cluster(config: HostsConfig, *, restart: bool = False) -> bool:
    """Start Ray on all hosts; on a cluster that runs, bring in the hosts that are new.

    Workers join within a minute of the head's start.

    Args:
        config: the hosts.
        restart: start Ray again where it runs, which ends all jobs.

    Returns:
        Whether Ray was started, rather than found running.

    Raises:
        HostError: a host cannot be logged in to.
        LauncherError: `ray up` failed.
    """
    check_hosts(config)
    make_token(config.token_file)
    running = is_running(config)
    options = ["--no-restart"] if running and not restart else []
    _ray(config, "up", *options)
    return not options


def stop_cluster(config: HostsConfig) -> None:
    """Stop Ray on all hosts, jobs and servers with it.

    Raises:
        HostError: a host cannot be logged in to; Ray runs on everywhere.
        LauncherError: Ray could not be stopped on a host, or `ray down` failed.
    """
    check_hosts(config)
    # `ray down` would stop the head alone, and by a `ray` that need not be in the login's PATH.
    with ThreadPoolExecutor(max_workers=16) as pool:
        results = pool.map(lambda host: run_on_host(config, host, "ray stop"), config.hosts)
    for host, result in zip(config.hosts, results, strict=True):
        if result.returncode != 0:
            raise LauncherError(f"{host}: ray stop failed: {result.stderr.strip()}")
    _ray(config, "down")


def run_on_head(config: HostsConfig, command: str) -> int:
    """Run a shell command on the head, its input and output this process's; its exit code."""
    terminal = ["-t"] if sys.stdin.isatty() else []
    login = ssh_command(config, config.head, *terminal)
    return subprocess.run([*login, in_environment(config, command)], check=False).returncode


def is_running(config: HostsConfig) -> bool:
    """Whether Ray's head answers on its host."""
    check = f"ray health-check --address {config.head}:{config.port}"
    return run_on_host(config, config.head, check).returncode == 0


def make_token(path: Path) -> None:
    """Write a new token to a file that only its owner reads, unless there is one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(file, "w") as stream:
        stream.write(secrets.token_hex(32))


# Ray 2.60's second autoscaler never logs in to the workers of the launcher's provider `local`.
_FIRST_AUTOSCALER = {"RAY_UP_enable_autoscaler_v2": "0"}


def _ray(config: HostsConfig, verb: str, *options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{config.name}.yaml"
        path.write_text(yaml.safe_dump(launcher_config(config)), encoding="utf-8")
        command = [sys.executable, "-m", "ray.scripts.scripts", verb, "--yes", *options, str(path)]
        environment = os.environ | _FIRST_AUTOSCALER
        result = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=environment)
    if result.returncode != 0:
        raise LauncherError(f"ray {verb} failed with exit code {result.returncode}, see above")
