"""What the guards around the server can be told."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

DEFAULT_MAX_BODY_BYTES = 8 * 1024 * 1024


class SecurityConfig(BaseModel):
    """Who may ask, how large a request may be, and where admin calls are recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_keys: tuple[SecretStr, ...] = Field(
        (), description="Keys that clients may authenticate with, also PROPULSION_API_KEY."
    )
    keys_file: Path | None = Field(
        None,
        description="File of API keys with tenant, role and limits, see `propulsion keys`; read "
        "again when it changes.",
    )
    open_metrics: bool | None = Field(
        None,
        description="Answer /metrics without a key. By default only while there is no keys file: "
        "the metrics name adapters, which tenants must not learn of each other.",
    )
    max_body_bytes: int = Field(
        DEFAULT_MAX_BODY_BYTES, ge=1, description="Largest request body accepted, in bytes."
    )
    audit_log: Path | None = Field(
        None,
        description="File that a JSON line is appended to for every admin call and every refusal; "
        "by default they go to the logger propulsion.audit.",
    )

    @property
    def asks_for_keys(self) -> bool:
        """Whether a client needs a key; without, the server may listen on loopback alone."""
        return bool(self.api_keys) or self.keys_file is not None

    @property
    def metrics_are_open(self) -> bool:
        """Whether /metrics is answered without a key."""
        return self.keys_file is None if self.open_metrics is None else self.open_metrics
