"""Which adapter holds which bank slot: least recently used first out, pinned ones never."""

from collections import OrderedDict
from collections.abc import Collection


class SlotTable:
    """Slots 1..num_slots for adapter ids; slot 0 is the base model's and never given away."""

    def __init__(self, num_slots: int):
        self.num_slots = num_slots
        self._slot_of: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(num_slots, 0, -1))
        self._pinned: set[int] = set()

    def __contains__(self, adapter_id: int) -> bool:
        return adapter_id in self._slot_of

    def __getitem__(self, adapter_id: int) -> int:
        return self._slot_of[adapter_id]

    def __len__(self) -> int:
        return len(self._slot_of)

    def assign(self, adapter_id: int, keep: Collection[int] = ()) -> tuple[int, bool]:
        """Give `adapter_id` a slot and mark it the most recently used.

        Args:
            adapter_id: the adapter about to be used.
            keep: ids whose slots must not be taken (those of the current batch).

        Returns:
            The slot, and whether the adapter is new in it (its rows must be written).

        Raises:
            RuntimeError: every slot is pinned or in `keep`.
        """
        if adapter_id in self._slot_of:
            self._slot_of.move_to_end(adapter_id)
            return self._slot_of[adapter_id], False
        slot = self._free.pop() if self._free else self._evict(keep)
        self._slot_of[adapter_id] = slot
        return slot, True

    def release(self, adapter_id: int) -> None:
        """Free the adapter's slot, pinned or not; an id without a slot is ignored."""
        self._pinned.discard(adapter_id)
        slot = self._slot_of.pop(adapter_id, None)
        if slot is not None:
            self._free.append(slot)

    def pin(self, adapter_id: int) -> None:
        """Keep an adapter that holds a slot from being evicted until it is released."""
        if adapter_id not in self._slot_of:
            raise KeyError(adapter_id)
        self._pinned.add(adapter_id)

    def _evict(self, keep: Collection[int]) -> int:
        for candidate in self._slot_of:
            if candidate not in self._pinned and candidate not in keep:
                return self._slot_of.pop(candidate)
        raise RuntimeError(
            f"no free adapter slot: all {self.num_slots} are pinned ({len(self._pinned)}) or used "
            "by the current batch; raise --max-adapters or pin fewer adapters"
        )
