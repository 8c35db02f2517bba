"""What `propulsion cluster monitor` can be told, each option explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from propulsion.errors import ConfigError

Port = Annotated[int, Field(ge=1, le=65535)]


def _checked_url(text: str) -> str:
    url = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = url.port
    except ValueError:
        port = None
    if url.scheme not in ("http", "https") or not url.hostname or port is None:
        raise ValueError(f"{text!r} is no address: write HOST:PORT or https://HOST:PORT")
    return f"{url.scheme}://{url.netloc}"


Address = Annotated[str, AfterValidator(_checked_url)]
"""Given as HOST:PORT or a URL, held as a URL without a path."""


class MonitorConfig(BaseModel):
    """Options of `propulsion cluster monitor`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: tuple[Address, ...] = Field(
        (), description="HOST:PORT of a server to watch; repeatable."
    )
    gateways: tuple[Address, ...] = Field(
        (), description="HOST:PORT of a gateway, which tells where its replicas are; repeatable."
    )
    trainers: tuple[Address, ...] = Field(
        (),
        description="HOST:PORT of a trainer's metrics; repeatable. Runs with `metrics_targets` in "
        "their file are found without.",
    )
    queues: tuple[Address, ...] = Field(
        (), description="HOST:PORT of the training queue's metrics; repeatable."
    )
    ray_dir: Path = Field(
        Path("/tmp/ray"), description="Ray's temporary folder, where it lists its nodes."
    )
    credentials_file: Path | None = Field(
        None, description="File with an admin key, for servers that want one at /metrics."
    )
    data_dir: Path = Field(
        Path("runs/monitoring"), description="Where configuration, measurements and logs are kept."
    )
    port: Port = Field(9090, description="Loopback port of Prometheus.")
    alertmanager_port: Port = Field(9093, description="Loopback port of Alertmanager.")
    grafana_port: Port = Field(3000, description="Loopback port of Grafana.")
    time_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor on every interval, window and delay of scrapes and rules; 0.02 lets an "
        "alert that waits for 5 minutes fire after 6 seconds.",
    )


def monitor_config(**options: object) -> MonitorConfig:
    """A checked MonitorConfig.

    Raises:
        ConfigError: an option is unknown or malformed, or the file of the key is missing.
    """
    try:
        config = MonitorConfig(**options)  # type: ignore[arg-type]
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"monitor option {where}: {message}") from error
    if config.credentials_file is not None and not config.credentials_file.is_file():
        raise ConfigError(f"--credentials-file {config.credentials_file}: there is no such file")
    return config
