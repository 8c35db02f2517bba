"""The adapters of one worker, behind the interface that model runners expect of a LoRA manager."""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from serving import vllm_compat
from serving.worker.bank import Bank
from serving.worker.layers import attach, find_layers
from serving.worker.rows import RowLayout, served_offsets
from serving.worker.slots import SlotTable

BASE_ID = 0
BASE_SLOT = 0


class WorkerAdapters:
    """Loads adapter rows to the host, moves them into bank slots, points each token at its slot.

    `max_loras` is the number of slots. An adapter loaded by `add_adapter` stays on the host until
    it is removed, so no step ever waits for, or fails over, its files. One that merely appears in a
    batch (offline use) is read then and cached: beyond `max_cpu_loras` adapters on the host, the
    least recently used of those not loaded explicitly leave.
    """

    def __init__(self, vllm_config: Any, device: torch.device):
        lora_config = vllm_config.lora_config
        self._device = device
        self._max_num_tokens = vllm_config.scheduler_config.max_num_batched_tokens
        self._slots = SlotTable(lora_config.max_loras)
        self._host_capacity = lora_config.max_cpu_loras
        self._host_rows: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._held: set[int] = set()
        self._warmup_ids: set[int] = set()
        self._bank: Bank
        self._layout: RowLayout

    @property
    def is_enabled(self) -> bool:
        return True

    def create_lora_manager(self, model: nn.Module, vllm_config: Any) -> nn.Module:
        """Allocate the bank for `model`, attach it to the layers and return the same model."""
        layers = find_layers(model)
        widths = {layer.name: layer.width for layer in layers}
        self._bank = Bank(widths, self._slots.num_slots, self._max_num_tokens, self._device)
        for layer in layers:
            attach(layer, self._bank)
        elsewhere = [
            name
            for name, module in model.named_modules()
            if isinstance(module, vllm_compat.PPMissingLayer)
        ]
        self._layout = RowLayout(layers, self._bank, elsewhere)
        return model

    def add_adapter(self, request: Any) -> bool:
        """Read an adapter to the host until it is removed; it takes a slot when first used.

        Raises:
            AdapterCorruptError, BaseMismatchError: ConfigError: as `served_offsets` and
                `RowLayout.row`.
        """
        if request.load_inplace:
            self.remove_adapter(request.lora_int_id)
        self._host_row(request, keep={request.lora_int_id})
        self._held.add(request.lora_int_id)
        return True

    def remove_adapter(self, adapter_id: int) -> bool:
        """Forget an adapter, pinned or not; False if it was not loaded."""
        self._slots.release(adapter_id)
        self._held.discard(adapter_id)
        return self._host_rows.pop(adapter_id, None) is not None

    def pin_adapter(self, adapter_id: int) -> bool:
        """Keep a loaded adapter in its slot and on the host until it is removed."""
        if adapter_id not in self._host_rows:
            raise ValueError(f"adapter {adapter_id} cannot be pinned: it is not loaded")
        self._activate(adapter_id, self._host_rows[adapter_id], keep=())
        self._slots.pin(adapter_id)
        self._held.add(adapter_id)
        return True

    def list_adapters(self) -> set[int]:
        """Ids of the adapters on the host."""
        return set(self._host_rows)

    def remove_all_adapters(self) -> None:
        """End a warm-up if one is on (vLLM's signal for it), else forget every adapter."""
        if self._warmup_ids:
            self._warmup_ids.clear()
            return
        for adapter_id in list(self._host_rows):
            self.remove_adapter(adapter_id)

    def set_active_adapters(self, requests: Collection[Any], mapping: Any | None) -> None:
        """Bring the batch's adapters into slots and write every token's slot.

        Args:
            requests: the LoRARequests of the batch, without the base.
            mapping: vLLM's LoRAMapping; `index_mapping` holds an adapter id (0: base) per token.
        """
        if mapping is not None and mapping.type != vllm_compat.LoRAMappingType.LANGUAGE:
            return
        active = {r.lora_int_id: r for r in requests if r.lora_int_id not in self._warmup_ids}
        for adapter_id, request in active.items():
            self._activate(adapter_id, self._host_row(request, keep=active), keep=active)
        if mapping is not None:
            self._bank.set_token_slots(self._token_slots(active, mapping.index_mapping))

    @contextmanager
    def dummy_lora_cache(self) -> Iterator[None]:
        """vLLM builds its warm-up adapters inside this; ours cost nothing to build."""
        yield

    def add_dummy_lora(self, request: Any, rank: int) -> bool:
        """Accept a warm-up adapter: its tokens read the base's row of zeros, at the full cost."""
        self._warmup_ids.add(request.lora_int_id)
        return True

    def get_dummy_lora_warmup_rank(self, default_rank: int) -> int:
        return default_rank

    def supports_tower_connector_lora(self) -> bool:
        return False

    def _host_row(self, request: Any, keep: Collection[int]) -> torch.Tensor:
        adapter_id = request.lora_int_id
        if adapter_id not in self._host_rows:
            self._host_rows[adapter_id] = self._layout.row(served_offsets(request.lora_path))
            self._shrink_host(keep)
        self._host_rows.move_to_end(adapter_id)
        return self._host_rows[adapter_id]

    def _shrink_host(self, keep: Collection[int]) -> None:
        spare = [i for i in self._host_rows if i not in keep and i not in self._held]
        for adapter_id in spare[: max(0, len(self._host_rows) - self._host_capacity)]:
            self.remove_adapter(adapter_id)

    def _activate(self, adapter_id: int, row: torch.Tensor, keep: Collection[int]) -> None:
        slot, is_new = self._slots.assign(adapter_id, keep)
        if is_new:
            self._bank.write(slot, row)

    def _token_slots(self, active: Collection[int], token_ids: tuple[int, ...]) -> np.ndarray:
        # Ids are sparse, so look them up by search; warm-up ids fall on the base's slot.
        known = np.array(sorted({BASE_ID, *active}), dtype=np.int64)
        slots = np.array([self._slots[i] if i else BASE_SLOT for i in known], dtype=np.int32)
        ids = np.asarray(token_ids, dtype=np.int64)
        position = np.searchsorted(known, ids).clip(max=len(known) - 1)
        return np.where(known[position] == ids, slots[position], BASE_SLOT).astype(np.int32)
