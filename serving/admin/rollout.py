"""Moving an alias, or splitting it, without a request that fails or waits for it."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from typing import Protocol
from weakref import WeakValueDictionary

from adapters import AdapterVersion
from adapters.reference import check_version
from propulsion.errors import AdapterNotFoundError
from serving.registry.loader import AdapterLoader
from serving.registry.resolution import Resolver
from serving.registry.servable import single


class ChangeableStore(Protocol):
    """What a roll-out needs of a store."""

    def resolve(self, reference: str) -> AdapterVersion: ...
    def aliases(self, name: str) -> Mapping[str, str]: ...
    def splits(self, name: str) -> Mapping[str, Mapping[str, float]]: ...
    def set_alias(self, name: str, alias: str, version: str) -> None: ...
    def delete_alias(self, name: str, alias: str) -> None: ...
    def set_split(self, name: str, alias: str, weights: Mapping[str, float]) -> None: ...
    def delete_split(self, name: str, alias: str) -> None: ...


class Rollout:
    """Changes where aliases lead. Use from one event loop.

    Where the alias's present version is loaded, the new one is loaded before the alias moves. If
    that fails, nothing moves. Requests that run keep the version they began with.
    """

    def __init__(self, store: ChangeableStore, loader: AdapterLoader, resolver: Resolver):
        self._store = store
        self._loader = loader
        self._resolver = resolver
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at one version.

        Raises:
            ConfigError: the alias or version is malformed.
            AdapterNotFoundError: the store has no such version.
            PropulsionError: the new version does not load, or the store cannot be written; the
                alias is where it was.
        """
        await self._change(
            name, alias, [version], lambda: self._store.set_alias(name, alias, version)
        )

    async def set_split(self, name: str, alias: str, weights: Mapping[str, float]) -> None:
        """Split an alias between versions by weight; errors as `set_alias`."""
        await self._change(
            name, alias, weights, lambda: self._store.set_split(name, alias, weights)
        )

    async def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias. Raises AdapterNotFoundError if there is none."""
        await self._change(name, alias, (), lambda: self._store.delete_alias(name, alias))

    async def delete_split(self, name: str, alias: str) -> None:
        """Remove an alias's split. Raises AdapterNotFoundError if there is none."""
        await self._change(name, alias, (), lambda: self._store.delete_split(name, alias))

    async def _change(
        self, name: str, alias: str, versions: Collection[str], commit: Callable[[], None]
    ) -> None:
        for version in versions:
            check_version(version)
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock, AsyncExitStack() as held:
            new = [await asyncio.to_thread(self._store.resolve, f"{name}@{v}") for v in versions]
            present = await asyncio.to_thread(self._present, name, alias)
            if any(self._loader.is_resident(f"{name}@{version}") for version in present):
                for found in new:
                    # Held until the alias has moved, so that it is there for the first request.
                    self._loader.failures.forget(found.reference)
                    resident = await self._loader.acquire(single(found))
                    held.callback(self._loader.release, resident)
            await asyncio.to_thread(commit)
            self._resolver.forget(name)

    def _present(self, name: str, alias: str) -> set[str]:
        try:
            split = self._store.splits(name).get(alias, {})
            version = self._store.aliases(name).get(alias)
        except AdapterNotFoundError:
            return set()
        return {*split, *([version] if version else [])}
