"""Which adapter row holds which bank slot: least recently used first out, pinned ones last."""

from collections import OrderedDict
from collections.abc import Collection, Hashable


class SlotTable:
    """Slots 1..num_slots for keys; slot 0 is the base model's and never given away."""

    def __init__(self, num_slots: int):
        self.num_slots = num_slots
        self.num_evictions = 0
        self._slot_of: OrderedDict[Hashable, int] = OrderedDict()
        self._free = list(range(num_slots, 0, -1))
        self._pinned: set[Hashable] = set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slot_of

    def __getitem__(self, key: Hashable) -> int:
        return self._slot_of[key]

    def __len__(self) -> int:
        return len(self._slot_of)

    def items(self) -> list[tuple[Hashable, int]]:
        """(key, slot) of all that hold one, the least recently used first."""
        return list(self._slot_of.items())

    def has_room(self, num_keys: int, keep: Collection[Hashable] = ()) -> bool:
        """Whether so many new keys would get slots without evicting one pinned or in `keep`."""
        taken = self._pinned | set(keep)
        spare = sum(key not in taken for key in self._slot_of)
        return num_keys <= len(self._free) + spare

    def assign(self, key: Hashable, keep: Collection[Hashable] = ()) -> tuple[int, bool]:
        """Give `key` a slot and mark it the most recently used.

        Args:
            key: the adapter row about to be used.
            keep: keys whose slots must not be taken (those of the current batch).

        Returns:
            The slot, and whether the key is new in it (its row must be written).

        Raises:
            RuntimeError: every slot is in `keep`.
        """
        if key in self._slot_of:
            self._slot_of.move_to_end(key)
            return self._slot_of[key], False
        slot = self._free.pop() if self._free else self._evict(keep)
        self._slot_of[key] = slot
        return slot, True

    def release(self, key: Hashable) -> None:
        """Free the key's slot, pinned or not; one without a slot is ignored."""
        self._pinned.discard(key)
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            self._free.append(slot)

    def clear(self) -> None:
        """Free every slot; pinned keys are pinned again as soon as they get one."""
        self._slot_of.clear()
        self._free = list(range(self.num_slots, 0, -1))

    def pin(self, key: Hashable) -> None:
        """Keep a key that holds a slot in it for as long as a batch can run without that slot."""
        if key not in self._slot_of:
            raise KeyError(key)
        self._pinned.add(key)

    def unpin(self, key: Hashable) -> None:
        """Let the key be evicted again."""
        self._pinned.discard(key)

    def _evict(self, keep: Collection[Hashable]) -> int:
        spare = [key for key in self._slot_of if key not in keep]
        if not spare:
            raise RuntimeError(
                f"no free adapter slot: all {self.num_slots} are used by the current batch; raise "
                "--max-adapters"
            )
        # A pin gives way before a batch fails, which would be the end of the engine.
        victim = next((key for key in spare if key not in self._pinned), spare[0])
        self.num_evictions += 1
        return self._slot_of.pop(victim)
