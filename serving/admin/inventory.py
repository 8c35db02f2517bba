"""What is in the store and where in the engine it is, for operators."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Protocol

from adapters import AdapterVersion
from propulsion.errors import PropulsionError
from serving.admin.schemas import AdapterDetails, AdapterInfo, AdapterPage, FileInfo
from serving.registry.listing import StoreListing
from serving.registry.loader import AdapterLoader
from serving.registry.states import AdapterState, adapter_states
from serving.security.principal import Principal

_KEPT_SUMMARIES = 65536
_THREADS = 8


class AliasedStore(Protocol):
    """What an inventory needs of a store."""

    def aliases(self, name: str) -> Mapping[str, str]: ...
    def splits(self, name: str) -> Mapping[str, Mapping[str, float]]: ...


@dataclass(frozen=True)
class _Summary:
    """What never changes of a version, without its long parts."""

    peft_type: str
    num_parameters: int
    bytes: int
    created: datetime
    base_fingerprint: str | None


@dataclass(frozen=True)
class _Names:
    """What points to the versions of one name."""

    aliases: Mapping[str, str]
    splits: Mapping[str, Mapping[str, float]]
    error: str | None = None


class Inventory:
    """Reads the store and the loader. Use from one event loop; the store is read in threads.

    Args:
        store: where aliases and splits are.
        listing: the store's versions.
        loader: what the engine holds.
        base_fingerprint: of the base served.
    """

    def __init__(
        self,
        store: AliasedStore,
        listing: StoreListing,
        loader: AdapterLoader,
        base_fingerprint: str,
    ):
        self._store = store
        self._listing = listing
        self._loader = loader
        self._base_fingerprint = base_fingerprint
        self._summaries: OrderedDict[str, _Summary] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="propulsion-inventory")

    async def page(
        self,
        principal: Principal,
        query: str,
        state: str | None,
        sort: str,
        limit: int,
        offset: int,
    ) -> AdapterPage:
        """The versions of the principal's adapters whose references hold `query`, any case.

        Args:
            principal: whose adapters.
            query: "" for all.
            state: only those in this state.
            sort: a SortField, after a minus from the other end.
            limit: how many at most.
            offset: how many to skip.
        """
        versions = await self._listing.versions()
        states = await adapter_states(self._loader)
        permitted = {name: principal.may_use(name) for name in {v.name for v in versions}}
        wanted = query.casefold()
        found = [
            version
            for version in versions
            if permitted[version.name]
            and wanted in version.reference.casefold()
            and (state is None or _state_of(states, version) == state)
        ]
        found = await self._sorted(found, states, sort)
        data = await self._infos(found[offset : offset + limit], states)
        return AdapterPage(data=data, total=len(found))

    async def info(self, version: AdapterVersion) -> AdapterInfo:
        """One version."""
        return (await self._infos([version], await adapter_states(self._loader)))[0]

    async def details(self, version: AdapterVersion, principal: Principal) -> AdapterDetails:
        """One version, with all that its manifest says that the principal may know.

        Raises:
            AdapterCorruptError: the manifest cannot be read.
        """
        info = await self.info(version)
        manifest = await self._in_thread(lambda: version.manifest)
        parent = manifest.parent
        if parent is not None and not principal.may_use(parent.partition("@")[0]):
            parent = None
        return AdapterDetails(
            **info.model_dump(),
            metrics=manifest.metrics,
            training_config=manifest.training_config,
            parent=parent,
            files={
                name: FileInfo(sha256=file.sha256, bytes=file.bytes)
                for name, file in manifest.files.items()
            },
        )

    async def _sorted(
        self, versions: list[AdapterVersion], states: Mapping[str, AdapterState], sort: str
    ) -> list[AdapterVersion]:
        """Those without a value come last; equals stay by name and version number."""
        descending, field = sort.startswith("-"), sort.removeprefix("-")
        if field == "reference":
            return versions[::-1] if descending else versions
        values: list[Any]
        if field in _Summary.__dataclass_fields__:
            # Of every version, not only of the page's.
            values = [getattr(s, field, None) for s in await self._summaries_of(versions)]
        elif field == "state":
            values = [_state_of(states, version) for version in versions]
        else:
            stored = AdapterInfo.model_fields[field].default
            values = [getattr(states.get(v.reference), field, stored) for v in versions]
        known = [pair for pair in zip(values, versions, strict=True) if pair[0] is not None]
        known.sort(key=itemgetter(0), reverse=descending)
        unknown = [v for value, v in zip(values, versions, strict=True) if value is None]
        return [version for _, version in known] + unknown

    async def _infos(
        self, versions: Sequence[AdapterVersion], states: Mapping[str, AdapterState]
    ) -> list[AdapterInfo]:
        names = dict.fromkeys(version.name for version in versions)
        read = [self._in_thread(self._read_names, name) for name in names]
        known = dict(zip(names, await asyncio.gather(*read), strict=True))
        summaries = await self._summaries_of(versions)
        return [
            self._info(version, summary, known[version.name], states.get(version.reference))
            for version, summary in zip(versions, summaries, strict=True)
        ]

    def _info(
        self,
        version: AdapterVersion,
        summary: _Summary | str,
        names: _Names,
        state: AdapterState | None,
    ) -> AdapterInfo:
        unreadable = summary if isinstance(summary, str) else names.error
        fields: dict[str, Any] = {"state": "stored"}
        if state is not None:
            fields = {
                key: getattr(state, key)
                for key in ("state", "slot", "pinned", "active_requests", "last_used", "error")
            }
            fields["load_seconds"] = state.load_seconds
        elif isinstance(summary, str):
            fields["state"] = "failed"
        fields["error"] = fields.get("error") or unreadable
        if not isinstance(summary, str):
            trained_for = summary.base_fingerprint
            fields |= {
                "peft_type": summary.peft_type,
                "num_parameters": summary.num_parameters,
                "bytes": summary.bytes,
                "created": summary.created,
                "base_matches": trained_for and trained_for == self._base_fingerprint,
            }
        return AdapterInfo(
            reference=version.reference,
            name=version.name,
            version=version.version,
            aliases=[a for a, target in names.aliases.items() if target == version.version],
            splits={
                alias: weights[version.version]
                for alias, weights in names.splits.items()
                if version.version in weights
            },
            **fields,
        )

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _read_names(self, name: str) -> _Names:
        try:
            return _Names(self._store.aliases(name), self._store.splits(name))
        except PropulsionError as error:
            # One damaged or vanished adapter spoils no page.
            return _Names({}, {}, str(error))

    async def _summaries_of(self, versions: Sequence[AdapterVersion]) -> list[_Summary | str]:
        """The summary of each, or why it cannot be read."""
        known: dict[str, _Summary | str] = {
            version.reference: self._summaries[version.reference]
            for version in versions
            if version.reference in self._summaries
        }
        unknown = [version for version in versions if version.reference not in known]
        read = await asyncio.gather(*(self._in_thread(self._summary, v) for v in unknown))
        known.update(zip((version.reference for version in unknown), read, strict=True))
        return [known[version.reference] for version in versions]

    def _summary(self, version: AdapterVersion) -> _Summary | str:
        """The summary, or why it cannot be read."""
        reference = version.reference
        try:
            manifest = version.manifest
        except PropulsionError as error:
            return str(error)
        summary = self._summaries[reference] = _Summary(
            manifest.peft_type,
            manifest.num_parameters,
            sum(file.bytes for file in manifest.files.values()),
            manifest.created,
            manifest.base_fingerprint,
        )
        if len(self._summaries) > _KEPT_SUMMARIES:
            self._summaries.popitem(last=False)
        return summary


def _state_of(states: Mapping[str, AdapterState], version: AdapterVersion) -> str:
    state = states.get(version.reference)
    return "stored" if state is None else state.state


def num_blends(references: Iterable[str]) -> int:
    """How many of these canonical references are blends."""
    return sum(":" in reference for reference in references)
