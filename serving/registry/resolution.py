"""From a parsed `model` to exact versions: splits drawn, aliases followed, results kept briefly.

What is kept counts for `ttl_seconds`, but not beyond a change made through this server: `forget`.
While the store is away, what was resolved before and is loaded keeps being served.
"""

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from adapters import AdapterVersion
from adapters.reference import Reference
from propulsion.errors import AdapterNotFoundError, PropulsionError, StoreUnavailableError
from serving.registry.references import ModelReference
from serving.registry.residents import Resident
from serving.registry.servable import Servable, blended, single
from serving.registry.splits import draw, fraction_of
from serving.registry.tasks import shared_task
from serving.security.principal import Principal

logger = logging.getLogger(__name__)

_THREADS = 8
_AWAY_SECONDS = 1.0
_LOAD_SECONDS = 10.0
_WARN_SECONDS = 60.0


class ReadableStore(Protocol):
    """What resolving needs of a store."""

    def resolve(self, reference: str) -> AdapterVersion: ...
    def splits(self, name: str) -> Mapping[str, Mapping[str, float]]: ...


@dataclass(frozen=True)
class Resolution:
    """What a request runs, and whether a split decided so."""

    servable: Servable
    was_drawn: bool = False


@dataclass(frozen=True)
class Target:
    """What one reference meant when it was looked up: a version, or a split between versions."""

    servable: Servable | None
    weights: Mapping[str, float]
    looked_up: float


class Resolver:
    """Follows references in a store. Use from one event loop; the store is asked in threads.

    Args:
        store: where adapters are.
        residents: what the engine holds, by canonical reference, as it changes.
        ttl_seconds: how long a result counts; 0 asks the store for every request.
        draw_random: fractions in [0, 1) for draws that are not sticky.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: ReadableStore,
        residents: Mapping[str, Resident],
        ttl_seconds: float = 1.0,
        draw_random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store = store
        self._residents = residents
        self.ttl_seconds = ttl_seconds
        self._draw_random = draw_random
        self._clock = clock
        self._targets: OrderedDict[str, dict[str, Target]] = OrderedDict()
        self._pending: dict[Reference, asyncio.Task[Target]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="propulsion-store")
        self._is_away = False
        self._retry_at = -math.inf
        self._warn_at = -math.inf

    async def resolve(self, wanted: ModelReference, key: str | None = None) -> Resolution:
        """What a request runs. The caller has checked that all names are permitted.

        Args:
            wanted: the parsed `model`.
            key: makes the draw of a split sticky, see `splits.request_key`.

        Raises:
            AdapterNotFoundError: there is no such adapter, version or alias.
            AdapterCorruptError: the store's files about it are damaged.
            ConfigError: the parts cannot be blended.
            StoreUnavailableError: the store is away, and what was asked is not loaded.
        """
        found = [(await self._part(part.reference, key), part.weight) for part in wanted.parts]
        if len(found) == 1 and found[0][1] == 1.0:
            return found[0][0]
        servable = blended((part.servable.parts[0][0], weight) for part, weight in found)
        return Resolution(servable, any(part.was_drawn for part, _ in found))

    def forget(self, name: str) -> None:
        """Ask the store about this adapter from the next request on: its aliases have changed."""
        self._targets.pop(name, None)
        # A look-up under way may hold what was before the change.
        for reference in [r for r in self._pending if r.name == name]:
            del self._pending[reference]

    def close(self) -> None:
        """End the threads; look-ups under way are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _part(self, reference: Reference, key: str | None) -> Resolution:
        target = self._counting(reference) or await self._look_up(reference)
        if target.servable is not None:
            return Resolution(target.servable)
        weights = self._drawable(reference.name, target.weights)
        fraction = fraction_of(reference.name, reference.selector, key, self._draw_random)
        version = draw(weights, fraction)
        drawn = await self._part(Reference(reference.name, version), key)
        return Resolution(drawn.servable, was_drawn=True)

    def _counting(self, reference: Reference) -> Target | None:
        resident = self._residents.get(str(reference)) if reference.is_version else None
        if resident is not None:
            # A version never changes, so one that is loaded needs no store.
            return Target(resident.servable, {}, math.inf)
        target = self._known(reference)
        is_recent = target is not None and self._clock() - target.looked_up < self.ttl_seconds
        return target if is_recent else None

    def _known(self, reference: Reference) -> Target | None:
        return self._targets.get(reference.name, {}).get(reference.selector)

    async def _look_up(self, reference: Reference) -> Target:
        known = self._known(reference)
        stale = known if known is not None and self._can_serve(reference.name, known) else None
        may_ask = self._clock() >= self._retry_at
        if self._is_away and stale is not None:
            # No request that can be answered waits for the store's time-outs.
            if may_ask:
                self._task(reference)
            return self._serve_stale(reference, stale)
        if not may_ask:
            raise StoreUnavailableError("The adapter store was away a moment ago; try again.")
        try:
            return await asyncio.shield(self._task(reference))
        except StoreUnavailableError:
            if stale is None:
                raise
            return self._serve_stale(reference, stale)

    def _task(self, reference: Reference) -> "asyncio.Task[Target]":
        if reference not in self._pending:
            self._pending[reference] = shared_task(self._ask(reference))
        return self._pending[reference]

    async def _ask(self, reference: Reference) -> Target:
        asked = self._clock()
        try:
            loop = asyncio.get_running_loop()
            target = await loop.run_in_executor(self._threads, self._read, reference, asked)
        except StoreUnavailableError:
            self._is_away = True
            self._retry_at = self._clock() + _AWAY_SECONDS
            raise
        except PropulsionError:
            self._is_away = False
            self._targets.get(reference.name, {}).pop(reference.selector, None)
            raise
        finally:
            is_current = self._pending.get(reference) is asyncio.current_task()
            if is_current:
                del self._pending[reference]
        self._is_away = False
        if is_current:
            self._keep(reference, target)
        return target

    def _read(self, reference: Reference, asked: float) -> Target:
        if not reference.is_version:
            weights = self._store.splits(reference.name).get(reference.selector)
            if weights:
                return Target(None, dict(weights), asked)
        return Target(single(self._store.resolve(str(reference))), {}, asked)

    def _keep(self, reference: Reference, target: Target) -> None:
        self._targets.setdefault(reference.name, {})[reference.selector] = target
        self._targets.move_to_end(reference.name)
        # Two for one that came, so that what is of no more use leaves sooner than it gathers.
        for _ in range(min(2, len(self._targets))):
            name, targets = self._targets.popitem(last=False)
            of_use = {s: target for s, target in targets.items() if self._is_of_use(name, target)}
            if of_use:
                self._targets[name] = of_use

    def _is_of_use(self, name: str, target: Target) -> bool:
        """Whether it counts still, is likely being loaded, or can be served without the store."""
        is_new = self._clock() - target.looked_up < max(self.ttl_seconds, _LOAD_SECONDS)
        return is_new or self._can_serve(name, target)

    def _can_serve(self, name: str, target: Target) -> bool:
        if target.servable is not None:
            return target.servable.reference in self._residents
        return any(f"{name}@{version}" in self._residents for version in target.weights)

    def _drawable(self, name: str, weights: Mapping[str, float]) -> Mapping[str, float]:
        if not self._is_away:
            return weights
        loaded = {v: w for v, w in weights.items() if f"{name}@{v}" in self._residents}
        return loaded or weights

    def _serve_stale(self, reference: Reference, stale: Target) -> Target:
        now = self._clock()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_SECONDS
            logger.warning("The store is away: serving what is loaded, as %s last was", reference)
        return stale


def require_permission(wanted: ModelReference, principal: Principal) -> None:
    """Refuse adapters that do not exist for a principal, before the store is asked about any.

    Raises:
        AdapterNotFoundError: it may not use one of the names.
    """
    for name in wanted.names:
        if not principal.may_use(name):
            raise AdapterNotFoundError(f"{principal.key_id} may not use {name}.")
