"""Which adapters the engine holds: loaded on first use, kept while in use, dropped when idle."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from adapters import AdapterVersion
from serving.engine import adapter_request
from serving.observability.metrics import ServeMetrics
from serving.worker.rpc import LOAD_METHOD, load_arguments, raise_load_error


class AdapterLoader:
    """Keeps the adapters of accepted requests in the engine's host memory.

    A version is checked, then loaded, before its request is scheduled, so a bad one fails its own
    requests only. It stays loaded at least until its last request has ended, which means that no
    engine step ever reads the store. Use from one event loop.

    Args:
        engine: vLLM's engine client.
        check: raises a PropulsionError for a version that must not be loaded; runs in a thread.
        capacity: adapters to hold; exceeded only while more than that are in use at once.
        metrics: counts the loads.

    Attributes:
        resident: LoRARequests by `name@version`, the least recently used first. Read only.
    """

    def __init__(
        self,
        engine: Any,
        check: Callable[[AdapterVersion], None],
        capacity: int,
        metrics: ServeMetrics,
    ):
        self.resident: OrderedDict[str, Any] = OrderedDict()
        self._engine = engine
        self._check = check
        self._capacity = capacity
        self._metrics = metrics
        self._users: Counter[str] = Counter()
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def acquire(self, version: AdapterVersion) -> None:
        """Have a version loaded and keep it so until `release`; concurrent first uses load it once.

        Raises:
            AdapterCorruptError, BaseMismatchError: it cannot be served.
            PropulsionError: it could not be loaded.
        """
        reference = version.reference
        self._users[reference] += 1
        try:
            if reference not in self.resident:
                # Shielded: the client that came first may leave while others wait for the load.
                await asyncio.shield(self._load_task(version))
            self.resident.move_to_end(reference)
        except BaseException:
            self.release(version)
            raise

    def release(self, version: AdapterVersion) -> None:
        """Undo one `acquire`; the version stays loaded until its room is needed."""
        self._users[version.reference] -= 1
        if not self._users[version.reference]:
            del self._users[version.reference]

    def _load_task(self, version: AdapterVersion) -> "asyncio.Task[None]":
        reference = version.reference
        if reference not in self._loading:
            self._loading[reference] = asyncio.create_task(self._load(version))
        return self._loading[reference]

    async def _load(self, version: AdapterVersion) -> None:
        request = adapter_request(version)
        try:
            with self._metrics.load():
                await asyncio.to_thread(self._check, version)
                await self._make_room()
                replies = await self._engine.collective_rpc(
                    LOAD_METHOD, args=load_arguments(request)
                )
                try:
                    raise_load_error(replies)
                except Exception:
                    # Some ranks may have taken it.
                    await self._engine.remove_lora(request.lora_int_id)
                    raise
            self.resident[version.reference] = request
            self._metrics.adapters_loaded.set(len(self.resident))
        finally:
            del self._loading[version.reference]

    async def _make_room(self) -> None:
        surplus = len(self.resident) + len(self._loading) - self._capacity
        idle = [reference for reference in self.resident if reference not in self._users]
        dropped = [self.resident.pop(reference) for reference in idle[: max(0, surplus)]]
        for request in dropped:
            await self._engine.remove_lora(request.lora_int_id)
        self._metrics.adapters_loaded.set(len(self.resident))
