"""Writes the chart's files that say what its values are.

python -m cluster.deploy.kubernetes.chart_files
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cluster.deploy.kubernetes.render import CHART
from cluster.deploy.kubernetes.values import Values, values_schema

HEADER = (
    "# Made by `python -m cluster.deploy.kubernetes.chart_files`. What is empty has to be given.\n"
)


def values_text(model: type[BaseModel] = Values, given: BaseModel | None = None) -> str:
    """A values file of the defaults, each under its description."""
    lines = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        default = getattr(given, name) if given is not None else field.get_default()
        lines += [f"# {line}" for line in textwrap.wrap(field.description or "", 96)]
        section = default if isinstance(default, BaseModel) else _section(field.annotation)
        if isinstance(section, BaseModel):
            inner = values_text(type(section), section)
        elif section is not None and default is PydanticUndefined:
            inner = values_text(section)
        else:
            value = "" if default is PydanticUndefined else default
            lines.append(f"{key}: {_inline(value)}")
            continue
        lines += [f"{key}:", textwrap.indent(inner.rstrip(), "  ")]
    return "\n".join(lines) + "\n"


def chart_files() -> dict[Path, str]:
    """The made files of the chart and what is in them."""
    return {
        CHART / "values.yaml": HEADER + values_text(),
        CHART / "values.schema.json": json.dumps(values_schema(), indent=2) + "\n",
    }


def _section(annotation: Any) -> type[BaseModel] | None:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def _inline(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def main() -> None:
    """Write them."""
    for path, text in chart_files().items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
