"""A YAML file that a pydantic model describes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from propulsion.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def read_settings(path: Path, model: type[Model], kind: str, root: str) -> Model:
    """The settings of a file.

    Args:
        path: of the file.
        model: what it is to hold.
        kind: what the file is, in plain words: "values file".
        root: what the whole of it is called, where no key is to blame.

    Raises:
        ConfigError: the file is missing or not YAML, or a key is unknown, missing or wrong; all
            wrong keys are told at once.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: no such {kind}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys, found {type(tree).__name__}")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, problem['loc'])) or root}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise ConfigError("\n".join([f"{path}: {len(lines)} problem(s)", *lines])) from error
