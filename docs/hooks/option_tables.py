"""The options of a pydantic model, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, get_args

from markdown_table import code, markdown_table
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_HEADER = ("key", "type", "default", "meaning")
_NAMES = {PurePath: "path", SecretStr: "secret"}


def option_tables(model: type[BaseModel]) -> str:
    """A table for `model`, then one under a heading for each model that its fields hold."""
    parts = [_table(model)]
    for section, held in _sections(model, ""):
        parts.append(f"### {code(section)}\n\n{held.__doc__}\n\n{_table(held)}")
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> str:
    return markdown_table(
        _HEADER,
        (
            (code(name), _type(field), _default(field), _meaning(field))
            for name, field in model.model_fields.items()
        ),
    )


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        held = _models(field.annotation)
        for one in held:
            tag = f" ({_tag(one)})" if len(held) > 1 else ""
            yield f"{prefix}{name}{tag}", one
            yield from _sections(one, f"{prefix}{name}.")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tag(model: type[BaseModel]) -> str:
    """What tells a model of a union from the others: the one value of its first field."""
    name, field = next(iter(model.model_fields.items()))
    return f"{name}: {get_args(field.annotation)[0]}"


def _type(field: FieldInfo) -> str:
    return "section" if _models(field.annotation) else _annotation(field.annotation)


def _annotation(annotation: Any) -> str:
    arguments = get_args(annotation)
    if annotation is type(None):
        return code("null")
    if not arguments:
        name = next((n for kind, n in _NAMES.items() if _is(annotation, kind)), None)
        return name or getattr(annotation, "__name__", str(annotation))
    origin = getattr(annotation, "__origin__", None)
    if hasattr(annotation, "__metadata__"):
        return _annotation(origin)
    if origin in (list, tuple):
        return f"list of {_annotation(arguments[0])}"
    if origin is dict:
        return f"{_annotation(arguments[0])} → {_annotation(arguments[1])}"
    if all(isinstance(argument, str | int) for argument in arguments):
        return ", ".join(code(str(argument)) for argument in arguments)
    return " or ".join(_annotation(a) for a in arguments if a is not type(None))


def _is(annotation: Any, kind: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, kind)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "of its keys"
    if field.default is None:
        return ""
    if isinstance(field.default, str):
        return code(repr(field.default)[1:-1])
    return code(str(field.default)) if field.default not in ([], {}, ()) else ""


def _meaning(field: FieldInfo) -> str:
    held = _models(field.annotation)
    bounds = ", ".join(map(_bound, field.metadata))
    text = field.description or (held[0].__doc__ if held else "") or ""
    return f"{text} ({bounds})" if bounds.strip(", ") else text


def _bound(constraint: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(constraint, name)}"
        for name, sign in signs.items()
        if getattr(constraint, name, None) is not None
    ]
    return " and ".join(found)
