import asyncio

import pytest

from propulsion.errors import StoreUnavailableError
from serving.registry.listing import StoreListing
from tests.serving.registry.stores import publish


def test_a_listing_is_shared_for_a_while_and_then_made_anew(store):
    publish(store, "a")

    async def scenario():
        now = 0.0
        listing = StoreListing(store, 1.5, lambda: now)
        first, *others = await asyncio.gather(*(listing.versions() for _ in range(20)))
        assert all(other is first for other in others)
        assert store.num_reads == 1
        publish(store, "b")
        assert await listing.versions() is first
        now = 1.5
        assert [str(version) for version in await listing.versions()] == ["a@v1", "b@v1"]

    asyncio.run(scenario())


def test_while_the_store_is_away_the_last_listing_is_given(store):
    publish(store, "a")

    async def scenario():
        listing = StoreListing(store, 0.0)
        store.is_away = True
        with pytest.raises(StoreUnavailableError):
            await listing.versions()
        store.is_away = False
        known = await listing.versions()
        store.is_away = True
        assert await listing.versions() is known

    asyncio.run(scenario())
