"""Which adapters the engine holds: loaded on first use, kept while in use, dropped when idle."""

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from adapters import AdapterVersion
from propulsion.errors import ConfigError, PropulsionError
from serving import vllm_compat
from serving.observability.tracing import span
from serving.registry.engine_adapters import EngineAdapters, EngineState
from serving.registry.failures import RecentFailures
from serving.registry.residents import LoadMetrics, Resident
from serving.registry.servable import Servable
from serving.registry.tasks import shared_task

logger = logging.getLogger(__name__)

Prepare = Callable[[AdapterVersion], AbstractContextManager[AdapterVersion]]


class EngineLostError(PropulsionError):
    """The engine died under a load."""


class AdapterLoader:
    """Keeps the adapters of accepted requests in the engine's host memory.

    An adapter is checked, then loaded, before its request is scheduled, so a bad one fails its own
    requests only. It stays loaded at least until its last request has ended, which means that no
    engine step ever reads the store. Use from one event loop.

    Args:
        engine: vLLM's engine client.
        prepare: gives a version's files, checked and kept in place while it is open; raises a
            PropulsionError for a version that must not be loaded. Entered and left in threads.
        capacity: adapters to hold; exceeded only while more than that are in use or pinned.
        metrics: counts loads, hits, misses and evictions.
        clock: monotonic seconds.
        max_loras: LoRA adapters to hold, all of which one batch may mix; an engine does not survive
            a batch with more.
        read_labels: from an adapter's folder to the names of its own head's labels, None without a
            head; raises a PropulsionError for a damaged one. Called in threads.

    Attributes:
        residents: by reference, the least recently used first. Read only.
        pins: references, with what they mean, that stay loaded. Read only.
        failures: the last errors of adapters that do not load. Read only.
    """

    def __init__(
        self,
        engine: Any,
        prepare: Prepare,
        capacity: int,
        metrics: LoadMetrics,
        clock: Callable[[], float] = time.monotonic,
        max_loras: int = 0,
        read_labels: Callable[[Path], Mapping[int, str] | None] = lambda folder: None,
    ):
        self.capacity = capacity
        self._max_loras = max_loras
        self.residents: OrderedDict[str, Resident] = OrderedDict()
        self.loading: dict[str, Resident] = {}
        self.pins: dict[str, Servable] = {}
        self.failures = RecentFailures(clock)
        self._engine = EngineAdapters(engine)
        self._prepare = prepare
        self._read_labels = read_labels
        self._metrics = metrics
        self._lost = asyncio.Event()
        self._replaced = asyncio.Event()
        # An engine tells adapters apart by id alone, so every load gets an id of its own.
        self._ids = itertools.count(1)
        self._leaving: set[asyncio.Task[None]] = set()

    def is_resident(self, reference: str) -> bool:
        """Whether the engine holds the adapter of this canonical reference."""
        return reference in self.residents

    def labels(self, reference: str) -> Mapping[int, str] | None:
        """Names of the labels of a resident adapter's own head; None if it has none."""
        resident = self.residents.get(reference)
        return None if resident is None else resident.labels

    async def acquire(self, servable: Servable) -> Resident:
        """Have an adapter loaded and keep it so until `release`; first users share one load.

        Raises:
            AdapterCorruptError, BaseMismatchError, ConfigError: it cannot be served.
            StoreUnavailableError: its files cannot be reached now.
            PropulsionError: it could not be loaded.
        """
        reference = servable.reference
        resident = self.residents.get(reference)
        if resident is not None:
            self._metrics.count_hit()
            resident.users += 1
            resident.last_used = time.time()
            self.residents.move_to_end(reference)
            return resident
        self._metrics.count_miss()
        resident = self.loading.get(reference) or self._start(servable)
        assert resident.task is not None
        resident.users += 1
        try:
            # Shielded: the client that came first may leave while others wait for the load.
            await asyncio.shield(resident.task)
        except BaseException:
            resident.users -= 1
            raise
        return resident

    def release(self, resident: Resident) -> None:
        """Undo one `acquire`; the adapter stays loaded until its room is needed."""
        resident.users -= 1
        reference = resident.servable.reference
        # After a reset it is no longer there, or another one is.
        if resident.leaving and not resident.users and self.residents.get(reference) is resident:
            self._leave(resident)

    async def load(self, servable: Servable, pin: bool = False) -> None:
        """Have an adapter loaded, whatever happened to it before; pinned, it stays.

        Raises:
            ConfigError: too many are pinned.
            PropulsionError: as `acquire`.
        """
        self.failures.forget(servable.reference)
        resident = await self.acquire(servable)
        try:
            if pin:
                await self._pin(resident)
        finally:
            self.release(resident)

    async def unload(self, reference: str, force: bool = False) -> None:
        """Take an adapter out of the engine; one that is not there is ignored.

        Args:
            reference: canonical.
            force: also one that is pinned; and one in use, which leaves when its last request has
                ended (requests that come until then still get it).

        Raises:
            ConfigError: it is pinned or in use, and not forced.
        """
        if (loading := self.loading.get(reference)) and loading.task:
            await asyncio.wait({loading.task})
        resident = self.residents.get(reference)
        if not force and reference in self.pins:
            raise ConfigError(f"{reference} is pinned: unpin it first, or force.")
        if not force and resident is not None and resident.users:
            raise ConfigError(
                f"{reference} is in use by {resident.users} requests: wait for them, or force, "
                "which unloads it when they have ended."
            )
        self.pins.pop(reference, None)
        self.failures.forget(reference)
        if resident is None:
            return
        self._metrics.count_unload()
        if resident.users:
            resident.leaving = True
            return
        self._drop(resident)
        await self._engine.unload(resident.request.lora_int_id)

    async def unpin(self, reference: str) -> None:
        """Let an adapter be dropped again; one that is not pinned is ignored."""
        self.pins.pop(reference, None)
        if resident := self.residents.get(reference):
            await self._engine.unpin(resident.request.lora_int_id)

    def lose_engine(self) -> None:
        """The engine has died: loads that it was asked for fail, so that their requests end.

        Loads that begin from now on wait for the next one, see `reset`.
        """
        self._lost.set()
        self._lost = asyncio.Event()

    async def reset(self, engine: Any = None) -> None:
        """Start afresh with an engine that has started again, and load the pinned adapters into it.

        Requests that still hold adapters of the old engine may end as they like.

        Args:
            engine: the new engine client, if it is another one.
        """
        self._engine = EngineAdapters(engine or self._engine.client)
        self._replaced.set()
        self._replaced = asyncio.Event()
        self.residents.clear()
        self._metrics.adapters_loaded.set(0)
        for reference, servable in list(self.pins.items()):
            try:
                await self.load(servable)
            except PropulsionError as error:
                logger.error("Pinned adapter %s did not come back: %s", reference, error)

    async def engine_state(self) -> EngineState:
        """Where the engine's adapters are."""
        return await self._engine.state()

    def _start(self, servable: Servable) -> Resident:
        self.failures.raise_recent(servable.reference)
        resident = self.loading[servable.reference] = Resident(servable)
        resident.task = shared_task(self._load(resident))
        return resident

    async def _load(self, resident: Resident) -> None:
        reference = resident.servable.reference
        start = time.perf_counter()
        try:
            with self._metrics.load(), span("propulsion.load", adapter=reference):
                while not await self._load_once(resident):
                    pass
        except EngineLostError:
            # It says nothing about the adapter.
            raise
        except PropulsionError as error:
            self.failures.add(reference, error)
            raise
        finally:
            del self.loading[reference]
        resident.load_seconds = time.perf_counter() - start
        resident.loaded_at = resident.last_used = time.time()
        self.failures.forget(reference)
        self.residents[reference] = resident
        self._metrics.adapters_loaded.set(len(self.residents))

    async def _load_once(self, resident: Resident) -> bool:
        """Load into the engine of now; false if that one was replaced meanwhile."""
        held = ExitStack()
        try:
            path = await asyncio.to_thread(self._open, held, resident)
            lost, replaced = self._lost, self._replaced
            giving = shared_task(self._give(resident, path))
            tasks = {giving, shared_task(lost.wait()), shared_task(replaced.wait())}
            try:
                # A dead engine may never answer.
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if lost.is_set():
                    reference = resident.servable.reference
                    raise EngineLostError(f"the engine died while it loaded {reference}")
                if not replaced.is_set():
                    await giving
            finally:
                for task in tasks:
                    task.cancel()
        finally:
            await asyncio.to_thread(held.close)
        return not replaced.is_set()

    async def _give(self, resident: Resident, path: str) -> None:
        await self._make_room()
        if self._max_loras and resident.servable.is_lora:
            await self._make_lora_room()
        reference = resident.servable.reference
        resident.request = vllm_compat.LoRARequest(
            lora_name=reference, lora_int_id=next(self._ids), lora_path=path
        )
        await self._engine.load(resident.request)
        if reference in self.pins:
            await self._pin_again(resident)

    def _open(self, held: ExitStack, resident: Resident) -> str:
        servable = resident.servable
        folders = [
            (held.enter_context(self._prepare(version)).path, weight)
            for version, weight in servable.parts
        ]
        if not servable.is_blend:
            resident.labels = self._read_labels(folders[0][0])
            return str(folders[0][0])
        from serving.worker.source import blend_path

        return blend_path(folders)

    async def _pin(self, resident: Resident) -> None:
        reference = resident.servable.reference
        if reference in self.pins:
            return
        # Without a free place no other adapter could be loaded.
        if len(self.pins) >= self.capacity - 1:
            raise ConfigError(
                f"{reference} cannot be pinned: {len(self.pins)} adapters are, of {self.capacity} "
                "that the engine holds; unpin another or raise --max-cpu-adapters."
            )
        self.pins[reference] = resident.servable
        try:
            await self._engine.pin(resident.request.lora_int_id)
        except BaseException:
            self.pins.pop(reference, None)
            raise

    async def _pin_again(self, resident: Resident) -> None:
        try:
            await self._engine.pin(resident.request.lora_int_id)
        except PropulsionError as error:
            # It is loaded and stays so; only its slot may be taken.
            logger.warning("%s has no slot of its own: %s", resident.servable.reference, error)

    async def _make_room(self) -> None:
        surplus = len(self.residents) + len(self.loading) - self.capacity
        idle = (
            resident
            for reference, resident in self.residents.items()
            if not resident.users and reference not in self.pins
        )
        await self._evict(list(itertools.islice(idle, max(0, surplus))))

    async def _make_lora_room(self) -> None:
        loras = [resident for resident in self.residents.values() if resident.servable.is_lora]
        starting = sum(resident.servable.is_lora for resident in self.loading.values())
        surplus = len(loras) + starting - self._max_loras
        idle = [r for r in loras if not r.users and r.servable.reference not in self.pins]
        if surplus > len(idle):
            raise PropulsionError(
                f"all {self._max_loras} places for LoRA adapters are in use: try again, or raise "
                "--max-lora-adapters."
            )
        await self._evict(idle[: max(0, surplus)])

    async def _evict(self, dropped: list[Resident]) -> None:
        # All of them first: while one is unloaded, the next might be taken into use.
        for resident in dropped:
            self._drop(resident)
            self._metrics.count_eviction()
        for resident in dropped:
            await self._engine.unload(resident.request.lora_int_id)

    def _drop(self, resident: Resident) -> None:
        del self.residents[resident.servable.reference]
        self._metrics.adapters_loaded.set(len(self.residents))

    def _leave(self, resident: Resident) -> None:
        self._drop(resident)
        task = shared_task(self._engine.unload(resident.request.lora_int_id))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
