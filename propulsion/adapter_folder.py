"""The two files of a PEFT adapter folder, and its configuration as it stands in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from propulsion.errors import AdapterCorruptError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def read_config_values(folder: str | Path) -> dict[str, Any]:
    """What `adapter_config.json` says, of any method of PEFT; `peft_type` is a text.

    Raises:
        AdapterCorruptError: it is missing, not a JSON object, or names no method.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        values: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise AdapterCorruptError(
            f"{path}: no such file; an adapter folder is what PEFT saves"
        ) from error
    except OSError as error:
        raise AdapterCorruptError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterCorruptError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise AdapterCorruptError(f"{path}: not a JSON object")
    if not isinstance(values.get("peft_type"), str) or not values["peft_type"]:
        raise AdapterCorruptError(f"{path}: has no peft_type, so its method is unknown")
    return values
