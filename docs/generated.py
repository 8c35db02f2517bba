"""Fills in what pages take from the code, so that it is never out of date.

A line `<!-- presets -->`, `<!-- options MODULE:MODEL -->`, `<!-- commands -->` or
`<!-- modules PACKAGE -->` becomes a table, a list or reference entries.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for each page."""
    return re.sub(r"<!-- (\w+)(?: (\S+))? -->", _replace, markdown)


def public_modules(package: str) -> list[str]:
    """Every module of a top-level package, by path."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return [n.removesuffix(".__init__") for n in names if not n.endswith("__main__")]


def _replace(match: re.Match[str]) -> str:
    kinds: dict[str, Callable[[str], str]] = {
        "presets": lambda _: _presets(),
        "options": _options,
        "commands": lambda _: _commands(),
        "modules": lambda package: "\n\n".join(f"::: {name}" for name in public_modules(package)),
    }
    kind, argument = match.groups()
    return kinds[kind](argument) if kind in kinds else match.group()


def _presets() -> str:
    from propulsion.architectures import ARCHITECTURES

    lines = [
        "| model type | Q, K, V (`attn`) | output | `mlp` | `embedding` |",
        "|---|---|---|---|---|",
    ]
    for name, architecture in sorted(ARCHITECTURES.items()):
        parts = (
            architecture.qkv,
            architecture.attention_output,
            architecture.mlp,
            architecture.embedding,
        )
        cells = ("<br>".join(f"`{suffix}`" for suffix in part) for part in parts)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _options(path: str) -> str:
    module, name = path.split(":")
    model = getattr(import_module(module), name)
    rows = _fields(model) if is_dataclass(model) else _rows(model, "")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _fields(model: Any) -> list[str]:
    return [
        f"| `{field.name}` | `{field.default!r}` | {field.metadata['help']} |"
        if field.default is not MISSING
        else f"| `{field.name}` | `{field.default_factory()!r}` | {field.metadata['help']} |"
        for field in fields(model)
        if field.name in vars(model)["__annotations__"]
    ]


def _rows(model: Any, prefix: str) -> list[str]:
    rows = []
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        nested = _models(field.annotation)
        if nested:
            meaning = field.description or (nested[0].__doc__ if len(nested) == 1 else "One of:")
            rows += [f"| `{prefix}{name}` | | {meaning} |"]
            for one in nested:
                if len(nested) > 1:
                    rows += [f"| `{prefix}{name}` with `{_tag(one)}` | | {one.__doc__} |"]
                rows += _rows(one, f"{prefix}{name}.")
            continue
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        rows.append(f"| `{prefix}{name}` | {default} | {field.description} |".replace("`None`", ""))
    return rows


def _models(annotation: Any) -> list[Any]:
    """The sections that a key may hold."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tag(model: Any) -> str:
    """What tells a section of a union from the others, as `type: answer`."""
    return next(
        f"{name}: {get_args(field.annotation)[0]}"
        for name, field in model.model_fields.items()
        if name in ("type", "format")
    )


def _commands() -> str:
    import typer
    from typer.main import get_command

    from propulsion.cli import build_app

    root: Any = get_command(build_app())
    return "\n\n".join(_command(root, typer.Context(root, info_name="propulsion")))


def _command(command: Any, context: Any) -> list[str]:
    if hasattr(command, "commands"):
        sections = (
            [] if context.parent is None else [f"## {context.command_path}\n\n{command.help}"]
        )
        for name in sorted(command.commands):
            child = command.commands[name]
            sections += _command(child, type(context)(child, info_name=name, parent=context))
        return sections
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        default = "required" if parameter.required else f"`{parameter.default}`"
        if parameter.default in (None, False):
            default = "required" if parameter.required else ""
        rows.append(f"| {names} | {default} | {getattr(parameter, 'help', '') or ''} |")
    level = "##" if context.parent.parent is None else "###"
    return [
        f"{level} {context.command_path}\n\n    {usage}\n\n{command.help}\n\n" + "\n".join(rows)
    ]
