"""What every part of the chart's values is, and the kinds of text that Kubernetes takes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    """A part of the values; keys are written in camelCase, as in any chart, and none is unknown."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True
    )


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""Of a Kubernetes object: lower-case letters, digits and dashes."""

Cpus = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$|^[0-9]+m$")]
"""A number of CPUs as Kubernetes writes it: 8, 0.5, 500m."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$")]
"""An amount as Kubernetes writes it: 16Gi."""

FolderPath = Annotated[str, Field(pattern=r"^/[^\s]+$")]
"""An absolute path inside a pod."""

Labels = dict[str, str]
