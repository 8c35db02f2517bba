"""What an operator can choose to see."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class ObservabilityConfig(BaseModel):
    """Metrics, logs and traces of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics_top_adapters: int = Field(
        50,
        ge=0,
        description="Adapters with metrics series of their own; further ones share `other`.",
    )
    log_format: LogFormat = Field(
        "text", description="Log lines as text, or as one JSON object each."
    )
    log_level: LogLevel = Field("info", description="Least serious log lines to write.")
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^(https?|grpc)://[^/]",
        description="Send OpenTelemetry traces there, such as http://collector:4318; off by "
        "default.",
    )
