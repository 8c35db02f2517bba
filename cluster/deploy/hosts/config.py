"""The file that lists the hosts of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.deploy.settings_file import read_settings
from propulsion.errors import ConfigError

Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$")]
"""An address or a name that all hosts can resolve."""


class HostsConfig(BaseModel):
    """Options of `propulsion cluster up`, read from a YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "propulsion", pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name of the cluster."
    )
    head: Host = Field(description="Host of Ray's head, on which jobs start.")
    workers: tuple[Host, ...] = Field((), description="The other hosts.")
    user: str = Field(
        pattern=r"^[a-z_][a-z0-9_-]*$", description="User of every host, who logs in by a key."
    )
    key: Path = Field(
        description="Private SSH key; the launcher copies it to the head, which logs in to the "
        "workers with it, so let it open nothing else."
    )
    known_hosts: Path | None = Field(
        None, description="File of the hosts' own keys; ~/.ssh/known_hosts if not given."
    )
    python: str = Field(
        pattern=r"^/[\w./-]+$",
        description="Folder of the Python environment on every host, in which Propulsion is "
        "installed; /opt/propulsion/bin/python is in /opt/propulsion.",
    )
    setup: tuple[str, ...] = Field(
        (), description="Shell commands that install it, run on a host whenever they change."
    )
    files: dict[str, Path] = Field(
        {}, description="Files and folders to copy, by their path on the hosts."
    )
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = Field(
        {}, description="Environment variables of Ray's processes, as NCCL_SOCKET_IFNAME."
    )
    token_file: Path = Field(
        Path("~/.ray/auth_token"),
        description="Ray's authentication token, which every host is given; made if it is missing.",
    )
    port: int = Field(6379, ge=1024, le=65535, description="Port of Ray's head.")
    dashboard_port: int = Field(
        8265, ge=1024, le=65535, description="Port of Ray's dashboard, on the head's loopback."
    )
    object_store_bytes: int | None = Field(
        None, ge=80_000_000, description="Size of Ray's object store on a host; Ray's own default."
    )

    @model_validator(mode="after")
    def _no_host_is_named_twice(self) -> HostsConfig:
        hosts = self.hosts
        twice = {host for host in hosts if hosts.count(host) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))}: named more than once")
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts, the head first."""
        return (self.head, *self.workers)


def load_hosts(path: str | Path) -> HostsConfig:
    """Read a file of hosts; local paths in it are relative to its folder, `~` is the user's home.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, missing or wrong, or a file
            that it names is missing.
    """
    path = Path(path)
    config = read_settings(path, HostsConfig, "file of hosts", "hosts")
    config = _with_absolute_paths(config, path.resolve().parent)
    for file in (config.key, config.known_hosts, *config.files.values()):
        if file is not None and not file.exists():
            raise ConfigError(f"{path}: {file}: no such file")
    return config


def _with_absolute_paths(config: HostsConfig, folder: Path) -> HostsConfig:
    def absolute(path: Path) -> Path:
        return folder / path.expanduser()

    return config.model_copy(
        update={
            "key": absolute(config.key),
            "known_hosts": absolute(config.known_hosts) if config.known_hosts else None,
            "token_file": absolute(config.token_file),
            "files": {remote: absolute(local) for remote, local in config.files.items()},
        }
    )
