"""What is asked of a fleet."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from propulsion.errors import ConfigError


class ServingDemand(BaseModel):
    """Adapters, traffic, and what is promised to clients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapters: int = Field(ge=1, le=10_000_000, description="Adapters that clients may ask for.")
    requests_per_second: float = Field(gt=0, description="Requests a second at the peak.")
    prompt_tokens: float = Field(ge=1, description="Mean tokens of a prompt.")
    output_tokens: float = Field(ge=1, description="Mean tokens of an answer.")
    ttft_p99_seconds: float = Field(
        gt=0, description="Promised time to first token: 99 % of the requests get theirs in it."
    )
    inter_token_p99_seconds: float = Field(
        gt=0, description="Promised time between tokens: 99 % of them come in it."
    )
    zipf_exponent: float = Field(
        1.0, ge=0, description="Popularity of the adapters: rank ** -exponent; 0 is all alike."
    )
    length_sigma: float = Field(
        0.5, ge=0, le=2, description="Spread of lengths: sigma of a log-normal law; 0 is none."
    )
    headroom: float = Field(
        0.2, ge=0, lt=1, description="Share of the engines' throughput to leave unused at the peak."
    )
    price_per_replica_hour: float | None = Field(
        None, gt=0, description="What a replica costs an hour, in any currency; none is assumed."
    )


def serving_demand(**fields: Any) -> ServingDemand:
    """A checked demand; fields that are None keep their default.

    Raises:
        ConfigError: a field is wrong.
    """
    try:
        return ServingDemand(**{name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        where = str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{where}: {problem['msg']}") from error
