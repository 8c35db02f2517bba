"""Runs commands on hosts over SSH, with the hosts' keys checked."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

from cluster.deploy.hosts.config import HostsConfig
from cluster.deploy.hosts.launcher_config import in_environment
from propulsion.errors import PropulsionError

_CONNECT_SECONDS = 10
_SSH_FAILED = 255


class HostError(PropulsionError):
    """A host cannot be logged in to, or lacks what a cluster needs."""


def ssh_command(config: HostsConfig, host: str, *options: str) -> list[str]:
    """The beginning of an ssh command; a host whose key is not known is refused."""
    known = [] if config.known_hosts is None else ["-o", f"UserKnownHostsFile={config.known_hosts}"]
    return [
        *("ssh", "-i", str(config.key), "-o", "IdentitiesOnly=yes"),
        *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
        *("-o", f"ConnectTimeout={_CONNECT_SECONDS}"),
        *known,
        *options,
        f"{config.user}@{host}",
    ]


def run_on_host(config: HostsConfig, host: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a host's environment and keep what it prints.

    Raises:
        HostError: the host cannot be logged in to.
    """
    result = subprocess.run(
        [*ssh_command(config, host), in_environment(config, command)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode == _SSH_FAILED:
        reason = result.stderr.strip().splitlines()[-1:] or ["ssh failed"]
        hint = ""
        if "Host key verification failed" in result.stderr:
            hint = f": compare its key and add it to known_hosts (ssh-keyscan {host})"
        raise HostError(f"{config.user}@{host}: {reason[0]}{hint}")
    return result


def check_hosts(config: HostsConfig) -> None:
    """Log in to every host at once.

    Raises:
        HostError: some cannot be logged in to; all of them are named.
    """

    def problem(host: str) -> str | None:
        try:
            run_on_host(config, host, "true")
        except HostError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max_workers=16) as pool:
        problems = [one for one in pool.map(problem, config.hosts) if one]
    if problems:
        raise HostError("\n  ".join([f"{len(problems)} host(s) cannot be used", *problems]))
