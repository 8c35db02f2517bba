"""All versions in the store, read at most once in a while however many ask."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from adapters import AdapterVersion
from propulsion.errors import StoreUnavailableError
from serving.registry.tasks import shared_task

logger = logging.getLogger(__name__)


class ListableStore(Protocol):
    """What a listing needs of a store."""

    def list(self) -> Sequence[AdapterVersion]: ...


class StoreListing:
    """The store's versions, by name and number.

    Args:
        store: listed in a thread.
        max_age_seconds: how old an answer may be.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: ListableStore,
        max_age_seconds: float = 1.5,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store = store
        self._max_age = max_age_seconds
        self._clock = clock
        self._versions: Sequence[AdapterVersion] | None = None
        self._listed = 0.0
        self._asking: asyncio.Task[Sequence[AdapterVersion]] | None = None

    async def versions(self) -> Sequence[AdapterVersion]:
        """Every version; the same object until it is listed again. The last known while it is away.

        Raises:
            StoreUnavailableError: the store is away, and has not been listed before.
            PropulsionError: it cannot be read.
        """
        if self._versions is not None and self._clock() - self._listed < self._max_age:
            return self._versions
        if self._asking is None:
            self._asking = shared_task(self._ask())
        # Shielded: others wait for the same listing.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Sequence[AdapterVersion]:
        try:
            self._versions = await asyncio.to_thread(self._store.list)
        except StoreUnavailableError as error:
            if self._versions is None:
                raise
            logger.warning("Listing adapters as they last were: %s", error)
        finally:
            self._asking = None
        self._listed = self._clock()
        return self._versions
