"""Scaled layers: which vLLM layers an adapter can scale, and the multiplication itself.

A forward hook multiplies the layer's output where it stands. The model keeps its modules and
parameters, so weight reloading, quantisation and vLLM's own passes see what they always saw; the
hook has no branch on data and reads tensors of fixed address, so torch.compile and CUDA graphs take
it.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from propulsion.kernels import gather_scale_
from serving import vllm_compat
from serving.worker.bank import Bank


@dataclass(frozen=True)
class Part:
    """The columns of a vLLM layer's output that one Hugging Face module produces.

    Attributes:
        offset: first column in this rank's output.
        size: number of columns on this rank.
        source_offset: first of them in the full, unsharded output.
        source_size: width of the full output, the d_out an adapter must have.
    """

    offset: int
    size: int
    source_offset: int
    source_size: int


@dataclass(frozen=True)
class ScaledLayer:
    """A vLLM linear layer whose output adapters may scale; `parts` by Hugging Face module path."""

    name: str
    module: nn.Module
    parts: dict[str, Part]

    @property
    def width(self) -> int:
        """Width of this rank's output."""
        return sum(part.size for part in self.parts.values())


def find_layers(model: nn.Module) -> list[ScaledLayer]:
    """The linear layers of a loaded vLLM model, packed ones split by `packed_modules_mapping`.

    A layer that hands its bias to the caller is left out: scaling must come after the bias.
    """
    packed = vllm_compat.get_packed_modules_mapping(model)
    layers = []
    for name, module in model.named_modules():
        if not isinstance(module, vllm_compat.LinearBase):
            continue
        if module.skip_bias_add and module.bias is not None:
            continue
        parent, _, leaf = name.rpartition(".")
        prefix = f"{parent}." if parent else ""
        sources = [prefix + source for source in packed.get(leaf, [leaf])]
        parts = _parts(module)
        if len(sources) == len(parts):
            layers.append(ScaledLayer(name, module, dict(zip(sources, parts, strict=True))))
    return layers


def attach(layer: ScaledLayer, bank: Bank) -> None:
    """Make the layer multiply its output by the bank rows of the tokens it is given."""
    layer.module.propulsion_bank = bank.layer(layer.name)
    layer.module.propulsion_slots = bank.token_slots
    layer.module.register_forward_hook(_scale_output)


def _scale_output(module: Any, args: tuple, output: Any) -> None:
    values = output[0] if isinstance(output, tuple) else output
    gather_scale_(values, module.propulsion_bank, module.propulsion_slots[: values.shape[0]])


def _parts(module: Any) -> list[Part]:
    # Sizes come from attributes, never from `weight`: the CPU backend repacks and frees it.
    if isinstance(module, vllm_compat.QKVParallelLinear):
        kv_rank = module.tp_rank // module.num_kv_head_replicas
        heads = [
            (module.num_heads, module.head_size, module.tp_rank, module.total_num_heads),
            (module.num_kv_heads, module.head_size, kv_rank, module.total_num_kv_heads),
            (module.num_kv_heads, module.v_head_size, kv_rank, module.total_num_kv_heads),
        ]
        shards = [(n * size, rank, total * size) for n, size, rank, total in heads]
    elif isinstance(module, vllm_compat.ColumnParallelLinear) and not module.gather_output:
        fulls = getattr(module, "output_sizes", [module.output_size])
        shards = [
            (size, module.tp_rank, full)
            for size, full in zip(module.output_partition_sizes, fulls, strict=True)
        ]
    else:
        # Row-parallel, replicated and gathered layers give every rank the whole output.
        fulls = getattr(module, "output_sizes", [module.output_size])
        shards = [(full, 0, full) for full in fulls]
    parts, offset = [], 0
    for size, rank, full in shards:
        parts.append(Part(offset, size, rank * size, full))
        offset += size
    return parts
