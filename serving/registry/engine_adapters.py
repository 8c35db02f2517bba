"""The adapter calls of the engine: asked of every worker, their refusals raised here."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from propulsion.errors import PropulsionError
from serving.registry.tasks import shared_task
from serving.worker.rpc import (
    LOAD_METHOD,
    PIN_METHOD,
    STATE_METHOD,
    UNLOAD_METHOD,
    UNPIN_METHOD,
    load_arguments,
    raise_load_error,
)

_STATE_SECONDS = 2.0


@dataclass(frozen=True)
class EngineState:
    """Where the engine's adapters are, as its first rank tells.

    Attributes:
        num_slots: bank rows that adapters may take.
        slots_used: bank rows taken; an adapter with a pair of scales takes two.
        slots: adapter ids in a slot, with the slot.
        pinned: ids that keep their slot.
        host: ids in host memory.
        row_bytes: memory of one bank row.
        slot_hits, slot_misses, evictions: counts since the engine started.
    """

    num_slots: int = 0
    slots_used: int = 0
    slots: dict[int, int] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()
    host: frozenset[int] = frozenset()
    row_bytes: int = 0
    slot_hits: int = 0
    slot_misses: int = 0
    evictions: int = 0


class EngineAdapters:
    """Loads, pins and forgets adapters in an engine, by vLLM's engine client.

    Every method but `state` raises what the client raises when the engine is dead, or never
    returns.

    Attributes:
        client: vLLM's engine client.
    """

    def __init__(self, engine: Any):
        self.client = engine
        self._state = EngineState()
        self._asking: asyncio.Task[EngineState] | None = None

    async def load(self, request: Any) -> None:
        """Read the adapter of a LoRARequest to every rank's host memory.

        Raises:
            AdapterCorruptError, BaseMismatchError, ConfigError, PropulsionError: a rank refused it;
                no rank keeps it.
        """
        replies = await self.client.collective_rpc(LOAD_METHOD, args=load_arguments(request))
        try:
            raise_load_error(replies)
        except PropulsionError:
            # Some ranks may have taken it.
            await self.unload(request.lora_int_id)
            raise

    async def unload(self, adapter_id: int) -> None:
        """Forget an adapter, pinned or not; one that is not loaded is ignored."""
        await self.client.collective_rpc(UNLOAD_METHOD, args=(adapter_id,))

    async def pin(self, adapter_id: int) -> None:
        """Keep a loaded adapter in a slot.

        Raises:
            PropulsionError: a rank has no slot to give away; none keeps it pinned.
        """
        replies = await self.client.collective_rpc(PIN_METHOD, args=(adapter_id,))
        try:
            raise_load_error(replies)
        except PropulsionError:
            await self.unpin(adapter_id)
            raise

    async def unpin(self, adapter_id: int) -> None:
        """Let an adapter's slot be taken again."""
        await self.client.collective_rpc(UNPIN_METHOD, args=(adapter_id,))

    async def state(self) -> EngineState:
        """Where the adapters are; the last known if the engine is dead or busy for 2 seconds."""
        if self._asking is None:
            self._asking = shared_task(self._ask())
        asking = self._asking
        # Not cancelled when slow: whoever asks next waits for the same answer.
        done, _ = await asyncio.wait({asking}, timeout=_STATE_SECONDS)
        if not done:
            return self._state
        if self._asking is asking:
            self._asking = None
        if asking.exception() is None:
            self._state = asking.result()
        return self._state

    async def base_answers(self) -> bool:
        """Whether the base can answer; not if the engine classifies and its base has no head."""
        replies = await self.client.collective_rpc(STATE_METHOD)
        return bool(replies[0]["base_answers"])

    async def _ask(self) -> EngineState:
        replies = await self.client.collective_rpc(STATE_METHOD)
        told = replies[0]
        return EngineState(
            num_slots=told["num_slots"],
            slots_used=told.get("slots_used", len(told["slots"])),
            slots=dict(told["slots"]),
            pinned=frozenset(told["pinned"]),
            host=frozenset(told["host"]),
            row_bytes=told["row_bytes"],
            slot_hits=told["slot_hits"],
            slot_misses=told["slot_misses"],
            evictions=told["evictions"],
        )
