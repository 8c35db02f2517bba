"""Which weights of a trained model are not those of its base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from propulsion.errors import ConfigError

_BUFFERS = {"inv_freq", "masked_bias"}
"""Constants that older versions of transformers saved beside the weights."""


def changed_weights(
    tensors: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], names: Iterable[str]
) -> list[str]:
    """Those of `names` whose tensor differs from the base's, or that the base lacks.

    The base is rounded to the dtype of the checkpoint first. Integers and known constants are
    passed over, since they are not trained; so is a tensor the base lacks if it equals another one
    of the base, as a tied weight does that was saved once.

    Raises:
        ConfigError: none of the names is in the base.
    """
    trainable = [
        name
        for name in names
        if name.rpartition(".")[2] not in _BUFFERS and tensors[name].is_floating_point()
    ]
    lacking = [name for name in trainable if name not in base]
    if trainable and len(lacking) == len(trainable):
        raise ConfigError(
            f"the base holds none of the checkpoint's weights, such as {lacking[0]!r}: give the "
            "base of the same model class, as its save_pretrained or state_dict() gives it"
        )
    copies = _equal_to_any(tensors, lacking, base)
    return [
        name
        for name in trainable
        if name not in copies and not (name in base and _equal(tensors[name], base[name]))
    ]


def _equal_to_any(
    tensors: Mapping[str, torch.Tensor], names: Iterable[str], base: Mapping[str, torch.Tensor]
) -> set[str]:
    # A constant tensor may equal a fresh one by chance.
    sought = {name: tensors[name] for name in names}
    sought = {name: tensor for name, tensor in sought.items() if not _is_constant(tensor)}
    found: set[str] = set()
    for other in base if sought else ():
        tensor = base[other]
        found |= {name for name, wanted in sought.items() if _equal(wanted, tensor)}
    return found


def _is_constant(tensor: torch.Tensor) -> bool:
    return tensor.numel() == 0 or bool((tensor == tensor.flatten()[0]).all())


def _equal(tensor: torch.Tensor, base: torch.Tensor) -> bool:
    return tensor.shape == base.shape and torch.equal(
        tensor.cpu(), base.to(device="cpu", dtype=tensor.dtype)
    )
