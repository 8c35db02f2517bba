"""The command `propulsion serve`, its options made from `ServeConfig`."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serving.config import ServeConfig, serve_config

_NAMES = {
    "api_keys": "--api-key",
    "scaled_kinds": "--scaled-kind",
    "scaled_modules": "--scaled-module",
}
_ENVIRONMENT = {
    "api_keys": "PROPULSION_API_KEY",
    "keys_file": "PROPULSION_KEYS_FILE",
    "store": "PROPULSION_STORE",
}


def serve(**options: Any) -> None:
    """Serve a base model and every adapter of a store to OpenAI clients."""
    # What was not said is the configuration's own default.
    config = serve_config(**{name: value for name, value in options.items() if value is not None})
    # Imported here so that `--help` and a wrong option answer at once.
    from serving.server import run

    raise typer.Exit(run(config))


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind: Any = field.annotation
    default: Any = inspect.Parameter.empty if field.is_required() else field.default
    if get_origin(kind) is tuple:
        # As text, which the configuration then checks: typer knows no lists of anything else.
        kind, default = list[str] | None, None
    if name == "vllm_args":
        info: Any = typer.Argument(metavar="[-- VLLM OPTIONS]", help=field.description)
    else:
        declared = [_NAMES[name]] if name in _NAMES else []
        info = typer.Option(
            *declared, help=field.description, envvar=_ENVIRONMENT.get(name), show_envvar=False
        )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def declare_options(command: Callable[..., None], kind: type[ServeConfig]) -> None:
    """Give a command that takes keyword arguments one option for each field of a configuration."""
    fields = kind.model_fields.items()
    parameters = [_parameter(name, field) for name, field in fields if _is_option(field)]
    # Typer reads both; options that must be given come first in its help.
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _is_option(field: FieldInfo) -> bool:
    """Whether a field fits on a command line; a configuration inside another one does not."""
    return not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))


declare_options(serve, ServeConfig)
