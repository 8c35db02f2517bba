"""(IA)³ adapters of PEFT (arXiv 2205.05638) as Propulsion adapters, and back.

(IA)³ multiplies the outputs of a layer by a vector l, and in the feed-forward part the inputs:
Propulsion of degree 1 with z = l.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config
from peft.config import PeftConfig

from propulsion.adapter_folder import WEIGHTS_FILE
from propulsion.config import PropulsionConfig
from propulsion.effective import KEY_PREFIX, KEY_SUFFIX, SavedScale, saved_scales
from propulsion.errors import AdapterCorruptError, ConfigError
from propulsion.interchange.offsets import offset_of
from propulsion.interchange.peft_folder import (
    check_destination,
    read_config,
    read_tensors,
    write_folder,
)
from propulsion.interchange.target_spelling import (
    first_fitting,
    ia3_scales_input,
    ia3_targets,
    propulsion_scales_input,
    propulsion_targets,
)
from propulsion.registration import PEFT_TYPE

IA3_SUFFIX = ".ia3_l"

_EMBEDDINGS = {"embed_in", "embed_positions", "embed_tokens", "shared", "wpe", "wte"}


def import_ia3(source: str | Path, destination: str | Path) -> Path:
    """Write the Propulsion adapter of degree 1 that does what an (IA)³ adapter does.

    δ = l - 1 gives l back exactly for l ≥ 1/2, and within 2^-24 for -1 ≤ l < 1/2; `offset_of` says
    what holds elsewhere. The shape of l tells what it scales: outputs if (d_out, 1), inputs if
    (1, d_in). Everything else is carried over; the target modules are spelled out where the
    configuration does not say what the tensors do.

    Args:
        source: folder of the (IA)³ adapter, with safetensors.
        destination: folder to write; must not exist, or be empty.

    Returns:
        `destination`.

    Raises:
        AdapterCorruptError: the source is damaged, not (IA)³, or scales a convolution.
        ConfigError: the destination is not free.
        PropulsionError: the destination cannot be written.
    """
    check_destination(destination)
    folder = Path(source)
    config = read_config(folder, IA3Config, "IA3")
    vectors, whole = read_tensors(folder, IA3_SUFFIX, config.modules_to_save)
    inputs = {
        name for name, vector in vectors.items() if _is_of_inputs(folder, config, name, vector)
    }
    deltas = {
        f"{KEY_PREFIX}{name}{KEY_SUFFIX}": offset_of(vector.reshape(1, -1))
        for name, vector in vectors.items()
    }
    candidates = [
        PropulsionConfig(degree=1, **_carried(config), **targets)
        for targets in propulsion_targets(config, vectors, inputs)
    ]
    fitting = first_fitting(folder, candidates, vectors, inputs, propulsion_scales_input)
    return write_folder(destination, fitting, {**deltas, **whole}, source=str(folder))


def export_ia3(source: str | Path, destination: str | Path) -> Path:
    """Write the (IA)³ adapter that does what a Propulsion adapter does.

    l is the effective scale, fp32, as the layers compute it: z^k, or the pooled one of several
    vectors. The rest is as in `import_ia3`. `fan_in_fan_out` is left at False; where layers are
    Conv1D, PEFT sets it right when it loads the adapter.

    Args:
        source: folder of the Propulsion adapter, of any degree and any pooling with one scale.
        destination: folder to write; must not exist, or be empty.

    Returns:
        `destination`.

    Raises:
        AdapterCorruptError: the source is damaged, or a scale is not finite.
        ConfigError: (IA)³ cannot do what the adapter does: it pools by max or min, or scales an
            embedding or normalisation (as far as module names tell); or the destination is not
            free.
        PropulsionError: the destination cannot be written.
    """
    check_destination(destination)
    folder = Path(source)
    scales = saved_scales(folder)
    for name, saved in scales.items():
        _check_exportable(folder, name, saved)
    config = read_config(folder, PropulsionConfig, PEFT_TYPE)
    _, whole = read_tensors(folder, KEY_SUFFIX, config.modules_to_save)
    inputs = {name for name, saved in scales.items() if saved.scaling.scales_input}
    vectors = {
        f"{KEY_PREFIX}{name}{IA3_SUFFIX}": saved.scale() if name in inputs else saved.scale().T
        for name, saved in scales.items()
    }
    candidates = [
        IA3Config(**_carried(config), **targets) for targets in ia3_targets(config, scales, inputs)
    ]
    fitting = first_fitting(folder, candidates, scales, inputs, ia3_scales_input)
    return write_folder(destination, fitting, {**vectors, **whole}, source=str(folder))


def _is_of_inputs(folder: Path, config: IA3Config, name: str, vector: torch.Tensor) -> bool:
    where = f"{folder / WEIGHTS_FILE}: tensor {KEY_PREFIX}{name}{IA3_SUFFIX}"
    shape = tuple(vector.shape)
    if len(shape) > 2:
        raise AdapterCorruptError(
            f"{where} has shape {shape}: it scales a convolution, which Propulsion does not; train "
            "without this target"
        )
    if len(shape) != 2 or 1 not in shape or 0 in shape or not vector.is_floating_point():
        raise AdapterCorruptError(
            f"{where} is {vector.dtype} of shape {shape}, expected floats of shape (d_out, 1), or "
            "(1, d_in) in a feed-forward module"
        )
    return ia3_scales_input(config, name) if shape == (1, 1) else shape[0] == 1


def _check_exportable(folder: Path, name: str, saved: SavedScale) -> None:
    if saved.scaling.is_pair:
        raise ConfigError(
            f"{folder}: pools by {saved.scaling.pooling}, which scales positive and negative "
            "outputs differently; (IA)³ has one scale per output and cannot do that. Train with "
            "pooling 'mean' or 'l2' to export"
        )
    leaf = name.rpartition(".")[2].lower()
    is_embedding = leaf in _EMBEDDINGS or leaf.endswith("embeddings")
    if is_embedding or "norm" in leaf or leaf.startswith("ln_"):
        kind = "an embedding" if is_embedding else "a normalisation"
        raise ConfigError(
            f"{folder}: scales {name!r}, which by its name is {kind}; (IA)³ takes linear and "
            "Conv1D layers alone. Train without this target to export"
        )


def _carried(config: PeftConfig) -> dict[str, Any]:
    """What means the same in both methods."""
    names = {field.name for field in fields(PeftConfig)} - {"peft_type", "peft_version"}
    return {name: getattr(config, name) for name in (*names, "modules_to_save")}
