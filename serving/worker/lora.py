"""Real LoRA adapters beside ours: vLLM's own manager, given a few slots of its own."""

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn

from serving import vllm_compat_lora

NO_ADAPTER = 0


class LoraAdapters:
    """vLLM's LoRA manager for at most `num_slots` adapters of a batch.

    Our slots are counted in thousands, and a LoRA slot holds matrices: so vLLM's manager is built
    with a configuration of its own, and sees a batch in which every other token is the base's.
    """

    def __init__(self, num_slots: int, vllm_config: Any, device: torch.device, embeddings: Any):
        self.num_slots = num_slots
        if device.type == "cpu":
            vllm_compat_lora.spare_base_rows()
        own_config = copy.copy(vllm_config)
        own_config.lora_config = copy.copy(vllm_config.lora_config)
        own_config.lora_config.max_loras = num_slots
        own_config.lora_config.max_cpu_loras = max(num_slots, vllm_config.lora_config.max_cpu_loras)
        self._config = own_config
        self._manager = vllm_compat_lora.own_manager()(own_config, device, embeddings)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Replace the model's layers by ones with low-rank weights; returns the model."""
        return self._manager.create_lora_manager(model, self._config)

    def add(self, request: Any) -> None:
        """Load an adapter; raises vLLM's own errors if it does not fit."""
        self._manager.add_adapter(request)

    def add_dummy(self, request: Any, rank: int) -> None:
        """Load a warm-up adapter, as many as there are slots."""
        if request.lora_int_id <= self.num_slots:
            self._manager.add_dummy_lora(request, rank)

    def remove(self, adapter_id: int) -> bool:
        """Forget an adapter; False if it was not loaded."""
        return self._manager.remove_adapter(adapter_id)

    def remove_all(self) -> None:
        """Forget all of them."""
        self._manager.remove_all_adapters()

    def deactivate_all(self) -> None:
        """Take all of them out of their slots; they stay loaded."""
        vllm_compat_lora.deactivate_all(self._manager)

    def pin(self, adapter_id: int) -> None:
        """Keep a loaded adapter in a slot."""
        self._manager.pin_adapter(adapter_id)

    def set_active(self, requests: Collection[Any], mapping: Any) -> None:
        """Bring the batch's LoRA adapters into slots; every other token is the base's.

        Args:
            requests: the batch's requests for LoRA adapters.
            mapping: vLLM's LoRAMapping of the whole batch.
        """
        ours = np.array([NO_ADAPTER, *(request.lora_int_id for request in requests)])
        masked = copy.copy(mapping)
        masked.index_mapping = _masked(mapping.index_mapping, ours)
        masked.prompt_mapping = _masked(mapping.prompt_mapping, ours)
        self._manager.set_active_adapters(set(requests), masked)

    def dummy_cache(self) -> Any:
        """vLLM's context in which warm-up adapters share their weights."""
        return self._manager.dummy_lora_cache()

    def warmup_rank(self, default: int) -> int:
        """The rank that warm-up adapters should have."""
        return self._manager.get_dummy_lora_warmup_rank(default)


def _masked(ids: Any, kept: np.ndarray) -> tuple[int, ...]:
    values = np.asarray(ids, dtype=np.int64)
    return tuple(np.where(np.isin(values, kept), values, NO_ADAPTER).tolist())
