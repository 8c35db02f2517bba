"""The admin API, under /admin/v1."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, get_args

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Query

from adapters import AdapterVersion
from adapters.reference import check_alias, check_name, parse_reference
from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
)
from serving.admin import schemas
from serving.admin.errors import RESPONSES, AdminRoute
from serving.admin.inventory import Inventory, num_blends
from serving.admin.rollout import ChangeableStore, Rollout
from serving.registry.listing import StoreListing
from serving.registry.loader import AdapterLoader
from serving.registry.resolution import Resolver
from serving.registry.servable import single
from serving.security.principal import current_principal

PREFIX = "/admin/v1"

ReferencePath = Annotated[
    str, Path(max_length=300, description="name, name@version or name@alias.")
]
NamePath = Annotated[str, Path(max_length=300, description="Name of an adapter.")]
_SORT_FIELDS = get_args(schemas.SortField)
SortQuery = Annotated[
    str,
    Query(
        pattern=rf"^-?({'|'.join(_SORT_FIELDS)})$",
        description=f"One of {', '.join(_SORT_FIELDS)}; with a minus before it from the other end. "
        "Adapters without the value come last.",
    ),
]
AliasPath = Annotated[str, Path(max_length=300, description="prod, latest, ….")]


class VerifiableStore(ChangeableStore, Protocol):
    """What the admin API needs of a store."""

    def verify(self, version: AdapterVersion) -> AdapterVersion: ...


@dataclass(frozen=True)
class Server:
    """What the admin API tells of the server itself.

    Attributes:
        base: name of the base model in requests.
        base_fingerprint: of its weights.
        version: of the server.
        engine: asks whether the engine lives, and how often it was started again.
        started: by `time.monotonic`.
    """

    base: str
    base_fingerprint: str
    version: str
    engine: Callable[[], schemas.EngineStatus]
    started: float


def require_admin() -> None:
    """Refuse everyone but admins. A second lock: the server's authentication is the first."""
    if not current_principal.get().is_admin:
        raise HTTPException(403, "The admin API needs an admin key.")


def build_router(
    store: VerifiableStore,
    listing: StoreListing,
    loader: AdapterLoader,
    resolver: Resolver,
    server: Server,
) -> APIRouter:
    """The routes under /admin/v1, to be included in the server's app."""
    router = APIRouter(
        prefix=PREFIX,
        tags=["admin"],
        route_class=AdminRoute,
        dependencies=[Depends(require_admin)],
        responses=RESPONSES,
    )
    inventory = Inventory(store, listing, loader, server.base_fingerprint)
    rollout = Rollout(store, loader, resolver)

    async def find(reference: str) -> AdapterVersion:
        try:
            wanted = parse_reference(reference)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        permitted(wanted.name, reference)
        resident = loader.residents.get(str(wanted))
        if resident is not None:
            # Also while the store is away.
            return resident.servable.parts[0][0]
        try:
            return await asyncio.to_thread(store.resolve, str(wanted))
        except AdapterNotFoundError as error:
            raise _unknown(reference) from error

    def permitted(name: str, shown: str | None = None) -> str:
        check_name(name)
        if not current_principal.get().may_use(name):
            raise _unknown(shown or name)
        return name

    async def known(name: str) -> None:
        permitted(name)
        try:
            await asyncio.to_thread(store.aliases, name)
        except AdapterNotFoundError as error:
            raise _unknown(name) from error

    async def aliases_of(name: str) -> schemas.Aliases:
        def read() -> schemas.Aliases:
            splits = {alias: dict(weights) for alias, weights in store.splits(name).items()}
            return schemas.Aliases(aliases=dict(store.aliases(name)), splits=splits)

        return await asyncio.to_thread(read)

    async def change(name: str, alias: str, act: Callable[..., Any], *args: Any) -> schemas.Aliases:
        await known(name)
        check_alias(alias)
        await act(name, alias, *args)
        return await aliases_of(name)

    @router.get("/status")
    async def status() -> schemas.Status:
        """What is served, and how full the engine is."""
        engine = await loader.engine_state()
        return schemas.Status(
            base=server.base,
            base_fingerprint=server.base_fingerprint,
            version=server.version,
            uptime_seconds=time.monotonic() - server.started,
            engine=server.engine(),
            slots=schemas.SlotStatus(
                total=engine.num_slots, used=engine.slots_used, pinned=len(engine.pinned)
            ),
            host=schemas.HostStatus(
                capacity=loader.capacity,
                used=len(loader.residents),
                blends=num_blends(loader.residents),
            ),
            row_bytes=engine.row_bytes,
        )

    @router.get("/adapters")
    async def list_adapters(
        query: Annotated[str, Query(max_length=300, description="Part of the reference.")] = "",
        state: Annotated[schemas.State | None, Query(description="Only in this state.")] = None,
        sort: SortQuery = "reference",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> schemas.AdapterPage:
        """The adapters, by name and version number if not sorted otherwise, a page at a time."""
        return await inventory.page(current_principal.get(), query, state, sort, limit, offset)

    @router.get("/adapters/{reference}")
    async def show(reference: ReferencePath) -> schemas.AdapterDetails:
        """All that is known of one version."""
        return await inventory.details(await find(reference), current_principal.get())

    @router.post("/adapters/{reference}/load")
    async def load(
        reference: ReferencePath,
        body: Annotated[schemas.LoadBody, Body(default_factory=schemas.LoadBody)],
    ) -> schemas.AdapterInfo:
        """Load a version into the engine; pinned, it stays there."""
        version = await find(reference)
        try:
            await loader.load(single(version))
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        if body.pin:
            await pin_loaded(version)
        return await inventory.info(version)

    async def pin_loaded(version: AdapterVersion) -> None:
        try:
            await loader.load(single(version), pin=True)
        except ConfigError as error:
            raise HTTPException(409, str(error)) from error

    @router.post("/adapters/{reference}/unload")
    async def unload(
        reference: ReferencePath,
        body: Annotated[schemas.UnloadBody, Body(default_factory=schemas.UnloadBody)],
    ) -> schemas.AdapterInfo:
        """Take a version out of the engine; its next request loads it again."""
        version = await find(reference)
        try:
            await loader.unload(version.reference, body.force)
        except ConfigError as error:
            raise HTTPException(409, str(error)) from error
        return await inventory.info(version)

    @router.post("/adapters/{reference}/pin")
    async def pin(reference: ReferencePath) -> schemas.AdapterInfo:
        """Load a version if need be, and keep it loaded."""
        version = await find(reference)
        await loader.load(single(version))
        await pin_loaded(version)
        return await inventory.info(version)

    @router.post("/adapters/{reference}/unpin")
    async def unpin(reference: ReferencePath) -> schemas.AdapterInfo:
        """Let a version be dropped again."""
        version = await find(reference)
        await loader.unpin(version.reference)
        return await inventory.info(version)

    @router.post("/adapters/{reference}/verify")
    async def verify(reference: ReferencePath) -> schemas.Verification:
        """Check a version's files against their checksums, its tensors, and the base it needs."""
        version = await find(reference)

        def check() -> None:
            store.verify(version).require_base(server.base_fingerprint, server.base)

        try:
            await asyncio.to_thread(check)
        except (AdapterCorruptError, BaseMismatchError) as error:
            return schemas.Verification(ok=False, error=str(error))
        return schemas.Verification(ok=True)

    @router.get("/adapters/{name}/aliases")
    async def aliases(name: NamePath) -> schemas.Aliases:
        """Where the aliases of an adapter lead."""
        await known(name)
        return await aliases_of(name)

    @router.put("/adapters/{name}/aliases/{alias}")
    async def set_alias(
        name: NamePath, alias: AliasPath, body: schemas.AliasBody
    ) -> schemas.Aliases:
        """Point an alias at a version, to roll it out or back; its split ends.

        If the present version is loaded, the new one is loaded first; should that fail, the alias
        stays and the answer says why.
        """
        return await change(name, alias, rollout.set_alias, body.version)

    @router.delete("/adapters/{name}/aliases/{alias}")
    async def delete_alias(name: NamePath, alias: AliasPath) -> schemas.Aliases:
        """Remove an alias."""
        return await change(name, alias, rollout.delete_alias)

    @router.put("/adapters/{name}/splits/{alias}")
    async def set_split(
        name: NamePath, alias: AliasPath, body: schemas.SplitBody
    ) -> schemas.Aliases:
        """Send shares of an alias's requests to several versions."""
        return await change(name, alias, rollout.set_split, body.weights)

    @router.delete("/adapters/{name}/splits/{alias}")
    async def delete_split(name: NamePath, alias: AliasPath) -> schemas.Aliases:
        """End a split: the alias means its one version again."""
        return await change(name, alias, rollout.delete_split)

    return router


def _unknown(shown: str) -> HTTPException:
    # One text for what does not exist and for what the admin's key may not use.
    return HTTPException(404, f"There is no adapter `{shown}`.")
