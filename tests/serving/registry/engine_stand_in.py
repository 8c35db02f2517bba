"""The engine's side of the adapter calls, without an engine, which takes half a minute to boot."""

import asyncio
from types import SimpleNamespace
from typing import Any


class EngineClientStandIn:
    """Answers the workers' adapter calls for two ranks, as `serving.worker.rpc` says.

    Adapters whose names begin with `misfit` are refused by the second rank. It has `num_slots`
    slots, given to adapters in the order in which they are loaded.

    Attributes:
        calls: what reached it: method and first argument.
        loaded: names by id.
        is_hanging: leaves loads without an answer, as an engine that died may.
        error: raised by every call.
    """

    def __init__(self, num_slots: int = 4):
        self.calls: list[tuple[str, Any]] = []
        self.loaded: dict[int, str] = {}
        self.paths: dict[str, str] = {}
        self.pinned: set[int] = set()
        self.num_slots = num_slots
        self.is_hanging = False
        self.error: Exception | None = None
        self.model_config = SimpleNamespace(max_model_len=256)
        self.renderer = self.input_processor = None

    async def collective_rpc(self, method: str, args: tuple = ()) -> list[Any]:
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return getattr(self, method)(*args) if not self.is_hanging else await asyncio.Future()

    def loads(self) -> list[str]:
        """The names loaded so far, in order."""
        return [name for method, name in self.calls if method == "load"]

    def load_propulsion_adapter(self, name: str, adapter_id: int, path: str) -> list[Any]:
        assert adapter_id not in self.loaded, "an id must never mean two adapters"
        self.calls.append(("load", name))
        self.loaded[adapter_id] = name
        self.paths[name] = path
        if name.startswith("misfit"):
            return [None, ["BaseMismatchError", "does not fit"]]
        return [None, None]

    def unload_propulsion_adapter(self, adapter_id: int) -> list[bool]:
        name = self.loaded.pop(adapter_id, None)
        self.pinned.discard(adapter_id)
        self.calls.append(("unload", name))
        return [name is not None] * 2

    def pin_propulsion_adapter(self, adapter_id: int) -> list[Any]:
        self.calls.append(("pin", self.loaded[adapter_id]))
        if len(self.pinned) >= self.num_slots:
            return [["ConfigError", "all slots are pinned"]] * 2
        self.pinned.add(adapter_id)
        return [None, None]

    def unpin_propulsion_adapter(self, adapter_id: int) -> list[None]:
        self.pinned.discard(adapter_id)
        self.calls.append(("unpin", self.loaded.get(adapter_id)))
        return [None, None]

    def propulsion_state(self) -> list[dict[str, Any]]:
        slots = dict(zip(self.loaded, range(1, self.num_slots + 1), strict=False))
        state = {
            "num_slots": self.num_slots,
            "slots_used": len(slots),
            "slots": slots,
            "pinned": sorted(self.pinned),
            "host": sorted(self.loaded),
            "row_bytes": 4096,
            "slot_hits": 0,
            "slot_misses": 0,
            "evictions": 0,
            "base_answers": True,
        }
        return [state, state]
