"""What the admin API takes and answers."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

State = Literal["stored", "loading", "host", "slot", "failed"]
SortField = Literal[
    "reference",
    "state",
    "slot",
    "active_requests",
    "num_parameters",
    "bytes",
    "last_used",
    "created",
]


class ErrorDetail(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: int


class ErrorBody(BaseModel):
    """Every error answer."""

    error: ErrorDetail


class EngineStatus(BaseModel):
    """Whether the engine lives."""

    healthy: bool = Field(description="Whether it answers.")
    restarts: int = Field(0, description="Times it was started again.")


class SlotStatus(BaseModel):
    """The bank's slots."""

    total: int = Field(description="Slots for adapters.")
    used: int = Field(description="Slots taken; an adapter with a pair of scales takes two.")
    pinned: int = Field(description="Adapters that keep their slot.")


class HostStatus(BaseModel):
    """The engine's host memory."""

    capacity: int = Field(description="Adapters it is to hold.")
    used: int = Field(description="Adapters it holds, blends among them.")
    blends: int = Field(description="Blends among them.")


class Status(BaseModel):
    """What is served, and how full it is."""

    base: str = Field(description="Name of the base model in requests.")
    base_fingerprint: str = Field(description="Fingerprint of its weights.")
    version: str = Field(description="Version of the server.")
    uptime_seconds: float
    engine: EngineStatus
    slots: SlotStatus
    host: HostStatus
    row_bytes: int = Field(description="Memory of one bank slot.")


class AdapterInfo(BaseModel):
    """One version of an adapter: what it is, and where."""

    reference: str = Field(description="name@version.")
    name: str
    version: str
    aliases: list[str] = Field([], description="Aliases that mean this version.")
    splits: dict[str, float] = Field({}, description="Its share of requests, by split alias.")
    state: State = Field(description="The nearest place to the model that holds it.")
    slot: int | None = Field(None, description="Its bank slot.")
    pinned: bool = Field(False, description="Whether it stays loaded.")
    active_requests: int = Field(0, description="Requests that run with it or wait for it.")
    last_used: datetime | None = Field(None, description="Latest use since it was loaded, UTC.")
    load_seconds: float | None = Field(None, description="How long its load took.")
    peft_type: str | None = None
    num_parameters: int | None = None
    bytes: int | None = Field(None, description="Size of its files.")
    created: datetime | None = None
    base_matches: bool | None = Field(
        None, description="Whether it was made for the base served; null if it does not say."
    )
    error: str | None = Field(None, description="Why it cannot be read or loaded.")


class FileInfo(BaseModel):
    """One file of a version."""

    sha256: str
    bytes: int


class AdapterDetails(AdapterInfo):
    """All that the store says of a version."""

    metrics: dict[str, JsonValue] = {}
    training_config: dict[str, JsonValue] = {}
    parent: str | None = Field(None, description="name@version it was trained on from.")
    files: dict[str, FileInfo] = {}


class AdapterPage(BaseModel):
    """Some of the adapters."""

    data: list[AdapterInfo]
    total: int = Field(description="How many there are on all pages.")


class Aliases(BaseModel):
    """Where the aliases of one adapter point."""

    aliases: dict[str, str] = Field(description="Version by alias.")
    splits: dict[str, dict[str, float]] = Field(description="Weights by version, by alias.")


class Verification(BaseModel):
    """What came of checking a version's files."""

    ok: bool
    error: str | None = None


class LoadBody(BaseModel):
    """Options of a load."""

    model_config = ConfigDict(extra="forbid")

    pin: bool = Field(False, description="Keep it loaded.")


class UnloadBody(BaseModel):
    """Options of an unload."""

    model_config = ConfigDict(extra="forbid")

    force: bool = Field(
        False,
        description="Also if it is pinned; if it is in use, as soon as its requests have ended.",
    )


class AliasBody(BaseModel):
    """Where an alias is to point."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(max_length=16, description="v1, v2, ….")


class SplitBody(BaseModel):
    """How an alias is to be split."""

    model_config = ConfigDict(extra="forbid")

    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, max_length=8, description="Share by version; any sum."
    )
