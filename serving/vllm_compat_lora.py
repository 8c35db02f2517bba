"""The part of `vllm_compat` that touches vLLM's own LoRA manager."""

import importlib
from typing import Any


def own_manager() -> Any:
    """The class of vLLM's LoRA manager, ours installed or not."""
    mixin = importlib.import_module("vllm.v1.worker.lora_model_runner_mixin")
    manager = mixin.LRUCacheWorkerLoRAManager
    return getattr(manager, "propulsion_original", manager)


def deactivate_all(manager: Any) -> None:
    """Take a manager's adapters out of their slots; they stay loaded."""
    for adapter_id in manager.list_adapters():
        manager._adapter_manager.deactivate_adapter(adapter_id)


def spare_base_rows() -> None:
    """Keep LoRA weights off tokens without an adapter on CPU.

    vLLM marks such tokens by index -1, and its torch operators take that as the last slot
    (`lora_b_weights[-1]`): beside a LoRA request every other one would get its weights.
    """
    operators = importlib.import_module("vllm.lora.ops.torch_ops.lora_ops")
    wrapper = importlib.import_module("vllm.lora.punica_wrapper.punica_cpu")
    if hasattr(operators.bgmv_expand, "propulsion_original"):
        return
    for name in ("bgmv_expand", "bgmv_expand_slice"):
        original = getattr(operators, name)

        def masked(
            inputs: Any,
            weights: Any,
            output: Any,
            indices: Any,
            *rest: Any,
            _original: Any = original,
            **options: Any,
        ) -> Any:
            return _original(
                inputs * (indices >= 0)[:, None], weights, output, indices, *rest, **options
            )

        masked.propulsion_original = original
        setattr(operators, name, masked)
        setattr(wrapper, name, masked)
