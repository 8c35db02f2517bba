"""Checkpoints of the code that the paper's authors published, as Propulsion adapters."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from propulsion.config import PropulsionConfig
from propulsion.effective import KEY_PREFIX, KEY_SUFFIX
from propulsion.errors import ConfigError
from propulsion.functional import effective_scale
from propulsion.interchange.authors_layout import ScaledLayer, find_layers, plain_names
from propulsion.interchange.base_comparison import changed_weights
from propulsion.interchange.offsets import offset_of
from propulsion.interchange.peft_folder import check_destination, write_folder
from propulsion.interchange.state_dicts import Source, open_state_dict

logger = logging.getLogger(__name__)

_SHOWN = 5


def import_authors(
    checkpoint: Source,
    destination: str | Path,
    *,
    degree: int,
    layer_norm_degree: int = 1,
    base: Source | None = None,
    modules_to_save: Sequence[str] = (),
    base_model_name_or_path: str | None = None,
    task_type: str | None = None,
) -> Path:
    """Write the adapter in a state dict saved by https://github.com/Kowsher/Propulsion.

    That code replaces layers and saves the whole model; δ = z - 1 is taken from it as `offset_of`
    says. By default it also trains the biases of the layers it scales, and new heads start
    untrained: give `base` to find such weights, which no scale carries. Without it they cannot be
    told from the base's, and a warning is logged. Where z was trained in 16 bits, its power was
    taken in 16 bits too; here it is taken in fp32.

    Args:
        checkpoint: the state dict of the trained model; or a folder, a `.safetensors`, `.bin`,
            `.pt` or `.pth` file, or the index of a sharded one. No code in it is run.
        destination: folder to write; must not exist, or be empty.
        degree: k of linear layers and embeddings, which no checkpoint tells: 5 in the authors'
            `PEFT()`, 15 in their layers, unless they were given another.
        layer_norm_degree: k of layer norms.
        base: the model before training, of the same class, given like `checkpoint`.
        modules_to_save: modules carried over whole, by name, such as "classifier"; the scale of a
            layer inside one is folded into its weights. So named, also a layer whose bias was
            trained can be carried.
        base_model_name_or_path: name of the base, for the adapter's configuration.
        task_type: of the model, as PEFT spells it.

    Returns:
        `destination`.

    Raises:
        AdapterCorruptError: the checkpoint or base is damaged, or not of the layout.
        ConfigError: a degree, task type or name is wrong, weights differ from the base outside of
            `modules_to_save`, or the destination is not free.
        PropulsionError: the destination cannot be written.
    """
    check_destination(destination)
    tensors = open_state_dict(checkpoint)
    layers = find_layers(tensors)
    weights = plain_names(tensors, layers)
    whole = [name for name in weights if _is_inside(name, modules_to_save)]
    for module in modules_to_save:
        if not any(_is_inside(name, [module]) for name in whole):
            raise ConfigError(f"modules_to_save: the checkpoint has no module named {module!r}")
    scaled = {name: x for name, x in layers.items() if not _is_inside(f"{name}.", modules_to_save)}
    if not scaled:
        raise ConfigError(
            "modules_to_save holds every scaled layer, so no scale is left for an adapter; name "
            "fewer modules"
        )
    if base is None:
        logger.warning(
            "No base was given to import_authors, so biases and other weights that were trained "
            "beside z cannot be found; if there are any, the adapter lacks them."
        )
    else:
        others = weights.keys() - {*whole}
        _refuse_changed(changed_weights(weights, open_state_dict(base), sorted(others)))
    config = _config(
        scaled, degree, layer_norm_degree, modules_to_save, base_model_name_or_path, task_type
    )
    kept = {
        f"{KEY_PREFIX}{name}": _folded(weights[name], name, layers, degree, layer_norm_degree)
        for name in whole
    }
    deltas = {f"{KEY_PREFIX}{m}{KEY_SUFFIX}": offset_of(x.z)[None] for m, x in scaled.items()}
    source = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    return write_folder(destination, config, {**deltas, **kept}, source)


def _is_inside(name: str, modules: Collection[str]) -> bool:
    return any(f".{module}." in f".{name}" for module in modules)


def _refuse_changed(names: list[str]) -> None:
    if not names:
        return
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    biases = sum(name.endswith(".bias") for name in names)
    raise ConfigError(
        f"{len(names)} weights of the checkpoint ({biases} of them biases) are not those of the "
        f"base: {shown}. A scale does not carry them: name their modules in modules_to_save to "
        "carry these over whole, or give a base that holds the trained weights"
    )


def _config(
    scaled: Mapping[str, ScaledLayer],
    degree: int,
    layer_norm_degree: int,
    modules_to_save: Sequence[str],
    base_model_name_or_path: str | None,
    task_type: str | None,
) -> PropulsionConfig:
    # Anchored, since a pattern also matches the end of a longer path.
    norms = {
        f"^{re.escape(name)}": layer_norm_degree for name, layer in scaled.items() if layer.is_norm
    }
    try:
        return PropulsionConfig(
            degree=degree,
            degree_pattern=norms if layer_norm_degree != degree else {},
            target_modules=[*scaled],
            modules_to_save=[*modules_to_save] or None,
            base_model_name_or_path=base_model_name_or_path,
            task_type=task_type,
            inference_mode=True,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _folded(
    weight: torch.Tensor,
    name: str,
    layers: Mapping[str, ScaledLayer],
    degree: int,
    layer_norm_degree: int,
) -> torch.Tensor:
    """A weight or bias with its layer's scale in it, computed in fp32; in its own dtype."""
    layer = layers.get(name.rpartition(".")[0])
    if layer is None:
        return weight
    k = layer_norm_degree if layer.is_norm else degree
    scale = effective_scale(offset_of(layer.z)[None], k)[0]
    if weight.ndim == 2 and layer.output_dim == 0:
        scale = scale[:, None]
    return (weight.float() * scale).to(weight.dtype)
