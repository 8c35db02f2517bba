"""The part of `vllm_compat` that touches vLLM's poolers and what answers by them.

Read in vLLM 0.26 to 0.32, in which these names and calls are the same.
"""

import importlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from serving import vllm_compat

CLASSIFYING_TASKS = frozenset({"classify", "token_classify"})


def accept_missing_heads(wants: Callable[[Any], bool]) -> None:
    """Let a base without a head classify where `wants(vllm_config)`: adapters bring their own.

    vLLM refuses to start then. See `lacks_head`. Calling it again changes nothing.
    """
    conversion = importlib.import_module("vllm.model_executor.models.adapters")
    original = conversion.as_seq_cls_model
    if hasattr(original, "propulsion_original"):
        return

    def as_seq_cls_model(cls: Any) -> Any:
        converted = original(cls)
        if converted is cls:
            return cls
        load = converted.load_weights

        def load_weights(self: Any, weights: Any) -> Any:
            loaded = load(self, weights)
            # By other names than `weight` where the base is quantised.
            missing = {f"score.{name}": part for name, part in self.score.named_parameters()}
            if loaded is None or missing.keys() & loaded or not wants(self.vllm_config):
                return loaded
            for parameter in missing.values():
                parameter.data.zero_()
            self.propulsion_lacks_head = True
            return {*loaded, *missing}

        converted.load_weights = load_weights
        return converted

    as_seq_cls_model.propulsion_original = original  # type: ignore[attr-defined]
    conversion.as_seq_cls_model = as_seq_cls_model


def lacks_head(model: Any) -> bool:
    """Whether the engine classifies, and its base came without a head."""
    return getattr(model, "propulsion_lacks_head", False)


def pooling_tasks(model: Any, vllm_config: Any) -> frozenset[str]:
    """What an engine that pools can do; nothing of one that generates."""
    pools = vllm_config.model_config.runner_type == "pooling"
    return frozenset(model.pooler.get_supported_tasks() if pools else ())


def classifying_heads(model: Any) -> list[Any]:
    """The ends of a model's poolers that have a `classifier`; called with what is pooled."""
    pooler = getattr(model, "pooler", None)
    poolers = getattr(pooler, "poolers_by_task", {"": pooler})
    heads = [getattr(one, "head", None) for one in poolers.values()]
    return [head for head in heads if getattr(head, "classifier", None) is not None]


def linear_sizes(module: Any) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer, None for anything else."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, vllm_compat.LinearBase):
        return module.input_size, module.output_size
    return None


def label_answers(labels_of: Callable[[Any], Mapping[int, str] | None]) -> None:
    """Have /classify name the labels `labels_of(lora_request)`; None leaves the base's."""
    serving = vllm_compat.ServingClassification
    original = getattr(serving._build_response, "propulsion_original", serving._build_response)

    def build_response(self: Any, ctx: Any) -> Any:
        labels = labels_of(ctx.lora_request) if ctx.lora_request is not None else None
        if labels is None:
            return original(self, ctx)
        # All that it reads of itself.
        config = SimpleNamespace(hf_config=SimpleNamespace(id2label=labels))
        return original(SimpleNamespace(model_config=config), ctx)

    build_response.propulsion_original = original  # type: ignore[attr-defined]
    serving._build_response = build_response
