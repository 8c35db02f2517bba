"""The adapters of one worker, behind the interface that model runners expect of a LoRA manager."""

import contextlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from propulsion.errors import ConfigError
from serving import vllm_compat
from serving.plugin import plugin_config
from serving.worker.bank import Bank
from serving.worker.fusion import Fusion, find_fusions
from serving.worker.heads import Heads
from serving.worker.hooks import LayerScale, attach
from serving.worker.lora import LoraAdapters
from serving.worker.rows import AdapterRows, RowLayout
from serving.worker.slots import SlotTable
from serving.worker.source import is_lora, served_scales
from serving.worker.targets import ScaledLayer, find_layers

BASE_ID = 0
BASE_SLOT = 0


class WorkerAdapters:
    """Loads adapter rows to the host, moves them into bank slots, points each token at its slot.

    `max_loras` is the most adapters a batch may mix. The bank has a row for each, and as many more
    as a batch has sequences, since an adapter pooled by max or min takes two. An adapter loaded by
    `add_adapter` stays on the host until it is removed, so no step ever waits for, or fails over,
    its files. One that merely appears in a batch (offline use) is read then and cached: beyond
    `max_cpu_loras` adapters on the host, the least recently used of those not loaded explicitly
    leave.
    """

    def __init__(self, vllm_config: Any, device: torch.device, embedding_modules: Any):
        lora_config = vllm_config.lora_config
        scheduler = vllm_config.scheduler_config
        self._config = plugin_config(vllm_config)
        self._device = device
        self._max_num_tokens = scheduler.max_num_batched_tokens
        pairs = min(lora_config.max_loras, scheduler.max_num_seqs)
        self._slots = SlotTable(lora_config.max_loras + pairs)
        self._host_capacity = lora_config.max_cpu_loras
        self._host: OrderedDict[int, AdapterRows] = OrderedDict()
        self._held: set[int] = set()
        self._pinned: set[int] = set()
        self._lora_ids: set[int] = set()
        self._warmup_ids: set[int] = set()
        self._active: dict[int, AdapterRows] = {}
        self._token_ids: np.ndarray | None = None
        # Adapters whose rows were copied to slots since they last ran.
        self._copied: set[int] = set()
        self._hits = 0
        self._misses = 0
        self._lora: LoraAdapters | None = None
        if self._config.max_lora_adapters:
            self._lora = LoraAdapters(
                self._config.max_lora_adapters, vllm_config, device, embedding_modules
            )
        self._bank: Bank
        self._heads: Heads
        self._layout: RowLayout
        self._scales: list[LayerScale]
        self._fusions: dict[str, Fusion]

    @property
    def is_enabled(self) -> bool:
        return True

    def create_lora_manager(self, model: nn.Module, vllm_config: Any) -> nn.Module:
        """Allocate the bank for `model`, attach it to the layers and return the same model."""
        self._fusions = {}
        if self._config.fusion:
            self._fusions = find_fusions(model, vllm_config, self._device)
        if self._lora is not None:
            model = self._lora.wrap(model)
        layers = find_layers(
            model,
            vllm_config.model_config.hf_text_config.to_dict(),
            self._config.kinds,
            self._config.modules,
        )
        if not layers:
            raise ConfigError(
                f"{type(model).__name__} has no layer that adapters can scale: kinds "
                f"{self._config.kinds}, modules {self._config.modules or 'any'}"
            )
        self._bank = Bank(
            {layer.name: layer.width for layer in layers},
            self._slots.num_slots,
            self._max_num_tokens,
            self._device,
            getattr(torch, self._config.bank_dtype),
        )
        self._heads = Heads(
            model, vllm_config, self._slots.num_slots, self._config.max_head_labels, self._device
        )
        self._captured = vllm_compat.is_captured(vllm_config)
        # A captured graph reads the second index of every token for ever, or never.
        self._bank.has_pairs = self._captured
        self._scales = [self._attach(layer) for layer in layers]
        elsewhere = [
            name
            for name, module in model.named_modules()
            if isinstance(module, vllm_compat.PPMissingLayer)
        ]
        self._layout = RowLayout(layers, self._bank, elsewhere, vllm_compat.module_renamer(model))
        return model

    def _attach(self, layer: ScaledLayer) -> LayerScale:
        fusion = self._fusions.get(layer.name)
        if fusion is None:
            return attach(layer, self._bank, captured=self._captured)
        scale = LayerScale(layer, self._bank)
        fusion.scale_by(layer, scale, captured=self._captured)
        return scale

    def add_adapter(self, request: Any) -> bool:
        """Read an adapter to the host until it is removed, and to a slot if one is free for it.

        Raises:
            AdapterCorruptError, BaseMismatchError, ConfigError: as `served_scales`,
                `RowLayout.rows` and `Heads.of`.
        """
        if request.load_inplace:
            self.remove_adapter(request.lora_int_id)
        if self._is_lora(request):
            return True
        adapter = self._host_adapter(request, keep={request.lora_int_id})
        self._held.add(request.lora_int_id)
        # Its request is waiting now: the copy overlaps with the steps before its first.
        keys = _keys(request.lora_int_id, adapter)
        keep = {*_all_keys(self._active), *keys}
        if self._slots.has_room(sum(key not in self._slots for key in keys), keep):
            self._activate(request.lora_int_id, adapter, keep)
        return True

    def remove_adapter(self, adapter_id: int) -> bool:
        """Forget an adapter, pinned or not; False if it was not loaded."""
        if adapter_id in self._lora_ids and self._lora is not None:
            self._lora_ids.discard(adapter_id)
            return self._lora.remove(adapter_id)
        if self._active.pop(adapter_id, None) is not None:
            self._token_ids = None
        for sign in (0, 1):
            self._slots.release((adapter_id, sign))
        self._copied.discard(adapter_id)
        self._held.discard(adapter_id)
        self._pinned.discard(adapter_id)
        return self._host.pop(adapter_id, None) is not None

    def pin_adapter(self, adapter_id: int) -> bool:
        """Keep a loaded adapter in its slot and on the host until it is unpinned or removed.

        Raises:
            ConfigError: it is not loaded, or every slot is pinned.
        """
        if adapter_id in self._lora_ids and self._lora is not None:
            self._lora.pin(adapter_id)
            return True
        if adapter_id not in self._host:
            raise ConfigError(f"adapter {adapter_id} cannot be pinned: it is not loaded")
        adapter = self._host[adapter_id]
        keys = _keys(adapter_id, adapter)
        if not self._slots.has_room(sum(key not in self._slots for key in keys), keep=keys):
            raise ConfigError(
                f"adapter {adapter_id} cannot be pinned: all slots are; unpin another or raise "
                "--max-adapters"
            )
        self._activate(adapter_id, adapter, keep=keys)
        # Its slots may have been those of adapters of the last batch, which need others then.
        self._active = {
            other: rows
            for other, rows in self._active.items()
            if all(key in self._slots for key in _keys(other, rows))
        }
        self._token_ids = None
        for key in keys:
            self._slots.pin(key)
        self._pinned.add(adapter_id)
        self._held.add(adapter_id)
        return True

    def unpin_adapter(self, adapter_id: int) -> None:
        """Let an adapter be evicted from its slot again; it stays on the host."""
        self._pinned.discard(adapter_id)
        for sign in (0, 1):
            self._slots.unpin((adapter_id, sign))

    def list_adapters(self) -> set[int]:
        """Ids of the adapters on the host."""
        return set(self._host) | self._lora_ids

    def remove_all_adapters(self) -> None:
        """End a warm-up if one is on (vLLM's signal for it), else fill the slots anew.

        vLLM calls it then after the base's weights were replaced. Rows do not depend on them, and
        the server counts on adapters that it loaded; but the bank may have lost its memory to
        vLLM's sleep.
        """
        if self._warmup_ids:
            self._warmup_ids.clear()
            if self._lora is not None:
                self._lora.remove_all()
            return
        self._bank.clear()
        self._slots.clear()
        self._active = {}
        self._token_ids = None
        if self._lora is not None:
            self._lora.deactivate_all()

    def state(self) -> dict[str, Any]:
        """What is where, for operators; see `serving.worker.rpc`."""
        slots: dict[int, int] = {}
        for (adapter_id, sign), slot in self._slots.items():  # type: ignore[misc]
            if sign == 0:
                slots[adapter_id] = slot
        return {
            "num_slots": self._slots.num_slots,
            "slots_used": len(self._slots),
            "slots": slots,
            "pinned": sorted(self._pinned),
            "host": sorted(self.list_adapters()),
            "row_bytes": self._bank.row_bytes,
            "slot_hits": self._hits,
            "slot_misses": self._misses,
            "evictions": self._slots.num_evictions,
            "base_answers": self._heads.base_has_one,
            "fused": {name: type(fusion).__name__ for name, fusion in self._fusions.items()},
        }

    def set_active_adapters(self, requests: Collection[Any], mapping: Any | None) -> None:
        """Bring the batch's adapters into slots and write every token's slot.

        Args:
            requests: the LoRARequests of the batch, without the base.
            mapping: vLLM's LoRAMapping; `index_mapping` holds an adapter id (0: base) per token.
        """
        if mapping is not None and mapping.type != vllm_compat.LoRAMappingType.LANGUAGE:
            return
        ours: dict[int, Any] = {}
        loras: list[Any] = []
        for request in requests:
            if self._is_lora(request):
                loras.append(request)
            elif request.lora_int_id not in self._warmup_ids:
                ours[request.lora_int_id] = request
            elif self._lora is not None and request.lora_int_id <= self._lora.num_slots:
                loras.append(request)
        self._bring_in(ours)
        if mapping is None:
            return
        self._set_token_slots(np.asarray(mapping.index_mapping, dtype=np.int64))
        if self._heads.bank is not None:
            ids = np.asarray(mapping.prompt_mapping, dtype=np.int64)
            self._heads.bank.set_request_slots(self._slots_of(ids))
        if self._lora is not None:
            self._lora.set_active(loras, mapping)

    @contextmanager
    def dummy_lora_cache(self) -> Iterator[None]:
        """vLLM builds its warm-up adapters inside this; ours cost nothing to build."""
        with contextlib.nullcontext() if self._lora is None else self._lora.dummy_cache():
            yield

    def add_dummy_lora(self, request: Any, rank: int) -> bool:
        """Accept a warm-up adapter: its tokens read the base's row of zeros, at the full cost."""
        self._warmup_ids.add(request.lora_int_id)
        if self._lora is not None:
            self._lora.add_dummy(request, rank)
        return True

    def get_dummy_lora_warmup_rank(self, default_rank: int) -> int:
        return default_rank if self._lora is None else self._lora.warmup_rank(default_rank)

    def supports_tower_connector_lora(self) -> bool:
        return False

    def _is_lora(self, request: Any) -> bool:
        adapter_id = request.lora_int_id
        if adapter_id in self._lora_ids:
            return True
        if adapter_id in self._host or adapter_id in self._warmup_ids:
            return False
        if not is_lora(request.lora_path):
            return False
        self._add_lora(request)
        return True

    def _add_lora(self, request: Any) -> None:
        if self._lora is None:
            raise ConfigError(
                f"{request.lora_name} is a LoRA adapter, and this server has no room for any: "
                "start it with --max-lora-adapters"
            )
        try:
            self._lora.add(request)
        except (ValueError, KeyError, AssertionError, RuntimeError) as error:
            raise ConfigError(f"{request.lora_name} cannot be served: {error}") from error
        self._lora_ids.add(request.lora_int_id)

    def _host_adapter(self, request: Any, keep: Collection[int]) -> AdapterRows:
        adapter_id = request.lora_int_id
        if adapter_id not in self._host:
            head = self._heads.of(request.lora_path)
            rows = self._layout.rows(served_scales(request.lora_path))
            self._host[adapter_id] = replace(rows, head=head)
            self._shrink_host(keep)
        self._host.move_to_end(adapter_id)
        return self._host[adapter_id]

    def _shrink_host(self, keep: Collection[int]) -> None:
        surplus = len(self._host) - self._host_capacity
        if surplus <= 0:
            return
        spare = [i for i in self._host if i not in keep and i not in self._held]
        for adapter_id in spare[:surplus]:
            self.remove_adapter(adapter_id)

    def _bring_in(self, requests: dict[int, Any]) -> None:
        """Have every adapter of the batch in slots; one like the last costs a comparison."""
        if requests.keys() == self._active.keys():
            return
        self._token_ids = None
        active = {i: self._host_adapter(r, keep=requests) for i, r in requests.items()}
        keep = set(_all_keys(active))
        for adapter_id, adapter in active.items():
            self._activate(adapter_id, adapter, keep)
        self._count(active.keys() - self._active.keys())
        self._active = active
        if self._captured:
            return
        self._bank.has_pairs = self._has_pairs()
        touched = np.zeros(len(self._scales), dtype=bool)
        for adapter in active.values():
            touched |= adapter.touches
        for scale, is_touched in zip(self._scales, touched.tolist(), strict=True):
            scale.active = is_touched

    def _activate(self, adapter_id: int, adapter: AdapterRows, keep: Collection[Any]) -> None:
        for key, row in zip(_keys(adapter_id, adapter), adapter.rows, strict=True):
            slot, is_new = self._slots.assign(key, keep)
            if is_new:
                self._bank.write(slot, row)
                if self._heads.bank is not None:
                    self._heads.bank.write(slot, adapter.head)
                self._copied.add(adapter_id)

    def _count(self, joining: Collection[int]) -> None:
        """Count the adapters that join the running batch by whether they were in slots already."""
        misses = len(self._copied.intersection(joining))
        self._misses += misses
        self._hits += len(joining) - misses
        self._copied.difference_update(joining)

    def _set_token_slots(self, ids: np.ndarray) -> None:
        """Write the slots of tokens whose adapters are `ids`."""
        if self._token_ids is not None and np.array_equal(ids, self._token_ids):
            return
        self._token_ids = ids
        negative = self._slots_of(ids, sign=1) if self._has_pairs() else None
        self._bank.set_token_slots(self._slots_of(ids), negative)

    def _slots_of(self, ids: np.ndarray, sign: int = 0) -> np.ndarray:
        """Slots of the adapters `ids`, int32; of those not active, the base's."""
        # Ids are sparse, so look them up by search.
        known = np.array(sorted(self._active), dtype=np.int64)
        place = np.searchsorted(known, ids)
        place = np.where(np.append(known, BASE_ID)[place] == ids, place, len(known))
        slots = [
            self._slots[_keys(adapter_id, self._active[adapter_id])[-sign]]
            for adapter_id in known.tolist()
        ]
        return np.array([*slots, BASE_SLOT], dtype=np.int32)[place]

    def _has_pairs(self) -> bool:
        return any(len(adapter.rows) == 2 for adapter in self._active.values())


def _keys(adapter_id: int, adapter: AdapterRows) -> list[tuple[int, int]]:
    """Slot keys of an adapter's rows: for values ≥ 0, and for values < 0 where they differ."""
    return [(adapter_id, sign) for sign in range(len(adapter.rows))]


def _all_keys(adapters: dict[int, AdapterRows]) -> Iterator[tuple[int, int]]:
    for adapter_id, adapter in adapters.items():
        yield from _keys(adapter_id, adapter)
