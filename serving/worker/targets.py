"""Which outputs and inputs of a loaded vLLM model adapters can scale, by Hugging Face module path.

vLLM packs several Hugging Face modules into one layer (q, k, v), orders a fused QKV in its own way,
and gives each tensor-parallel rank its own part: a `Part` says which columns of a module's scale a
rank needs, and where in its layer they go.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from propulsion.architectures import ARCHITECTURES, QKV_PARTS, ends_with_any, fused_qkv_columns
from serving import vllm_compat, vllm_compat_pooling
from serving.plugin import KINDS, Kind

# Models with queries, keys and values one after another in a single projection.
_QKV_IN_ORDER = frozenset(
    {"baichuan", "chatglm", "dbrx", "gpt_bigcode", "mpt", "phi3", "qwen", "starcoder"}
)


@dataclass(frozen=True)
class Part:
    """The columns of a vLLM layer that one Hugging Face module's scale goes to.

    Attributes:
        offset: first column in this rank's layer.
        columns: which of the module's columns they are, in order.
        source_size: width of the module's output (or scaled input), the d an adapter must have.
    """

    offset: int
    columns: slice | torch.Tensor
    source_size: int

    @property
    def size(self) -> int:
        """Number of columns on this rank."""
        if isinstance(self.columns, slice):
            return self.columns.stop - self.columns.start
        return len(self.columns)


@dataclass(frozen=True)
class ScaledLayer:
    """A vLLM layer that adapters may scale.

    Attributes:
        name: unique among the layers; the module's path, with `.input` where inputs are scaled.
        module: where the hook goes.
        width: columns on this rank.
        outputs: parts by the Hugging Face module whose output they scale.
        inputs: parts by the Hugging Face module whose input they scale. Of a gated MLP the down
            projection's input is scaled in the up projection's output, which is the same.
        scales_input: whether the hook scales what goes into `module`.
        takes_pairs: whether values have their final sign there, which max and min pooling need.
    """

    name: str
    module: nn.Module
    width: int
    outputs: Mapping[str, Part]
    inputs: Mapping[str, Part]
    scales_input: bool = False
    takes_pairs: bool = True


def find_layers(
    model: nn.Module,
    model_config: Mapping[str, Any],
    kinds: tuple[Kind, ...] = KINDS,
    modules: tuple[str, ...] = (),
) -> list[ScaledLayer]:
    """The layers of a loaded vLLM model that adapters can scale.

    Left out are layers that hand their bias to the caller (scaling must come after the bias),
    layers that run on other rows than the batch's tokens (vision towers, classification heads), and
    fused projections of an unknown order.

    Args:
        model: the model, also one that vLLM's LoRA manager has wrapped.
        model_config: its transformers configuration, as a dictionary.
        kinds: which kinds of layers.
        modules: if given, only layers in which a module's path ends with one of these names.
    """
    layers = [
        layer
        for name, module, hooked in _language_modules(model)
        for layer in _layers_of(model, model_config, kinds, name, module, hooked)
    ]
    if not modules:
        return layers
    return [
        layer
        for layer in layers
        if any(ends_with_any(source, modules) for source in (*layer.outputs, *layer.inputs))
    ]


def _language_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name, module, and the module to hook: a LoRA wrapper never calls its layer's forward."""
    modules = dict(model.named_modules())
    elsewhere = vllm_compat.tower_prefixes(model)
    heads = vllm_compat_pooling.classifying_heads(model)
    of_requests = {id(module) for head in heads for module in head.modules()}
    for name, module in modules.items():
        if name.startswith(elsewhere) or id(module) in of_requests:
            continue
        parent, _, leaf = name.rpartition(".")
        if leaf == "base_layer":
            yield parent, module, modules[parent]
        else:
            yield name, module, module


def _layers_of(
    model: nn.Module,
    config: Mapping[str, Any],
    kinds: tuple[Kind, ...],
    name: str,
    module: Any,
    hooked: nn.Module,
) -> Iterator[ScaledLayer]:
    if "linear" in kinds and isinstance(module, vllm_compat.LinearBase):
        yield from _linear(model, config, name, module, hooked)
    elif "norm" in kinds and vllm_compat.is_norm(module):
        yield _whole(name, hooked, module.weight.shape[-1])
    elif "embedding" in kinds and vllm_compat.is_input_embedding(module):
        yield _whole(name, hooked, module.embedding_dim)


def _whole(name: str, hooked: nn.Module, width: int) -> ScaledLayer:
    return ScaledLayer(name, hooked, width, {name: Part(0, slice(0, width), width)}, {})


def _linear(
    model: nn.Module, config: Mapping[str, Any], name: str, module: Any, hooked: nn.Module
) -> Iterator[ScaledLayer]:
    if module.skip_bias_add and module.bias is not None:
        return
    parent, _, leaf = name.rpartition(".")
    prefix = f"{parent}." if parent else ""
    packed = vllm_compat.packed_modules(model)
    sources = [prefix + source for source in packed.get(leaf, [leaf])]
    shards = _shards(module)
    outputs = _output_parts(config, module, sources, shards)
    if outputs is None:
        return
    gated = _gated_input(model, prefix, outputs)
    width = sum(size for size, _, _ in shards)
    is_row_parallel = isinstance(module, vllm_compat.RowParallelLinear)
    is_partial = is_row_parallel and module.tp_size > 1 and not module.reduce_results
    yield ScaledLayer(name, hooked, width, outputs, gated, takes_pairs=not is_partial)
    if is_row_parallel and _follows_activation(model, prefix, module):
        full, size = module.input_size, module.input_size_per_partition
        start = module.tp_rank * size
        inputs = {name: Part(0, slice(start, start + size), full)}
        yield ScaledLayer(f"{name}.input", hooked, size, {}, inputs, scales_input=True)


def _shards(module: Any) -> list[tuple[int, int, int]]:
    """(size on this rank, first column of the whole, width of the whole) of each packed output."""
    # Sizes come from attributes, never from `weight`: the CPU backend repacks and frees it.
    if isinstance(module, vllm_compat.QKVParallelLinear):
        kv_rank = module.tp_rank // module.num_kv_head_replicas
        heads = [
            (module.num_heads, module.head_size, module.tp_rank, module.total_num_heads),
            (module.num_kv_heads, module.head_size, kv_rank, module.total_num_kv_heads),
            (module.num_kv_heads, module.v_head_size, kv_rank, module.total_num_kv_heads),
        ]
        return [(n * size, rank * n * size, total * size) for n, size, rank, total in heads]
    fulls = getattr(module, "output_sizes", None) or [module.output_size]
    if isinstance(module, vllm_compat.ColumnParallelLinear) and not module.gather_output:
        sizes = module.output_partition_sizes
        return [
            (size, module.tp_rank * size, full) for size, full in zip(sizes, fulls, strict=True)
        ]
    # Row-parallel, replicated and gathered layers give every rank the whole output.
    return [(full, 0, full) for full in fulls]


def _output_parts(
    config: Mapping[str, Any], module: Any, sources: list[str], shards: list[tuple[int, int, int]]
) -> dict[str, Part] | None:
    """Parts by module, or None where the order of a fused projection is not known."""
    if len(sources) == len(shards):
        offsets = accumulate((size for size, _, _ in shards), initial=0)
        return {
            source: Part(offset, slice(start, start + size), full)
            for source, offset, (size, start, full) in zip(sources, offsets, shards, strict=False)
        }
    if len(sources) != 1:
        return None
    fulls = [full for _, _, full in shards]
    orders = [torch.arange(full) + first for full, first in zip(fulls, _starts(fulls), strict=True)]
    if isinstance(module, vllm_compat.QKVParallelLinear):
        model_type = config.get("model_type", "")
        known = ARCHITECTURES.get(model_type)
        if known is not None and known.is_fused:
            orders = [torch.tensor(fused_qkv_columns(config, part)) for part in QKV_PARTS]
        elif model_type not in _QKV_IN_ORDER:
            return None
    chosen = [
        order[start : start + size] for order, (size, start, _) in zip(orders, shards, strict=True)
    ]
    return {sources[0]: Part(0, torch.cat(chosen), sum(fulls))}


def _starts(sizes: list[int]) -> list[int]:
    return list(accumulate(sizes[:-1], initial=0))


def _gated_input(model: nn.Module, prefix: str, outputs: Mapping[str, Part]) -> dict[str, Part]:
    """In down(act(gate) * up), a scale of down's input scales the output of up."""
    parts = list(outputs.values())
    down = _row_parallel_sibling(model, prefix)
    if down is None or len(parts) != 2 or parts[0].source_size != parts[1].source_size:
        return {}
    name, module = down
    return {name: parts[1]} if module.input_size == parts[1].source_size else {}


def _follows_activation(model: nn.Module, prefix: str, module: Any) -> bool:
    """Whether the inputs come from a sibling's outputs through an activation, without a gate."""
    siblings = _siblings(model, prefix)
    return any(
        isinstance(other, vllm_compat.ColumnParallelLinear)
        and not isinstance(other, vllm_compat.QKVParallelLinear)
        and other.output_size == module.input_size
        for other in siblings.values()
    )


def _row_parallel_sibling(model: nn.Module, prefix: str) -> tuple[str, Any] | None:
    for leaf, module in _siblings(model, prefix).items():
        if isinstance(module, vllm_compat.RowParallelLinear):
            return prefix + leaf, module
    return None


def _siblings(model: nn.Module, prefix: str) -> dict[str, Any]:
    parent = model.get_submodule(prefix.rstrip(".")) if prefix else model
    return {leaf: getattr(module, "base_layer", module) for leaf, module in parent.named_children()}
