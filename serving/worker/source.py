"""What a LoRARequest's path may say: an adapter's folder, or a blend of several."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from propulsion.adapter_folder import read_config_values
from propulsion.effective import saved_scales
from propulsion.errors import AdapterCorruptError, ConfigError

_BLEND_PREFIX = "propulsion-blend:"


@dataclass(frozen=True)
class ServedScale:
    """What an adapter does to one module.

    Attributes:
        offset: s - 1, shape (1, d), or (2, d) for values ≥ 0 and < 0; fp32.
        scales_input: whether it scales what goes into the module rather than what comes out.
    """

    offset: torch.Tensor
    scales_input: bool


def blend_path(parts: Sequence[tuple[str | Path, float]]) -> str:
    """The path of a blend: the product of the scales of adapter folders, each to its weight."""
    return _BLEND_PREFIX + json.dumps([[str(path), weight] for path, weight in parts])


def adapter_folders(path: str) -> list[tuple[Path, float]]:
    """The folders that a request's path means, with their weights."""
    if not path.startswith(_BLEND_PREFIX):
        return [(Path(path), 1.0)]
    return [(Path(part), weight) for part, weight in json.loads(path[len(_BLEND_PREFIX) :])]


def is_lora(path: str) -> bool:
    """Whether the path means a LoRA adapter, which vLLM itself applies.

    Raises:
        ConfigError: a blend has a part that is one.
    """
    kinds = [_peft_type(folder) == "LORA" for folder, _ in adapter_folders(path)]
    if any(kinds) and len(kinds) > 1:
        raise ConfigError("a LoRA adapter cannot be blended: only scales have a product")
    return kinds[0]


def served_scales(path: str) -> dict[str, ServedScale]:
    """What the adapter or blend at `path` does to each module, by Hugging Face module path.

    Raises:
        AdapterCorruptError: a file is missing, truncated or not a Propulsion adapter.
        ConfigError: a blend scales a module's input in one part and its output in another, or asks
            for a power that a scale does not have.
    """
    parts = [(saved_scales(folder), weight) for folder, weight in adapter_folders(path)]
    if len(parts) == 1 and parts[0][1] == 1.0:
        return {
            module: ServedScale(saved.offset(), saved.scaling.scales_input)
            for module, saved in parts[0][0].items()
        }
    # Imports peft's tuner, which plain adapters do not need.
    from propulsion.weighted import blend

    blended = {}
    for module in dict.fromkeys(module for scales, _ in parts for module in scales):
        present = [(scales[module], weight) for scales, weight in parts if module in scales]
        sides = {saved.scaling.scales_input for saved, _ in present}
        if len(sides) > 1:
            raise ConfigError(f"the parts of the blend scale different sides of {module!r}")
        widths = {saved.delta.shape[-1] for saved, _ in present}
        if len(widths) > 1:
            raise ConfigError(f"the parts of the blend give {module!r} different widths: {widths}")
        offsets = [saved.offset() for saved, _ in present]
        offset = blend(offsets, [weight for _, weight in present], "geometric")
        blended[module] = ServedScale(offset, sides.pop())
    return blended


def _peft_type(folder: Path) -> str | None:
    # A file that cannot be read is for `served_scales` to refuse, with what is wrong.
    try:
        peft_type: str = read_config_values(folder)["peft_type"]
    except AdapterCorruptError:
        return None
    return peft_type
