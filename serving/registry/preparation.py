"""An adapter's files, checked and in place, for as long as a load reads them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from adapters import AdapterVersion


class HoldingStore(Protocol):
    """What preparing needs of a store."""

    def hold(self, version: AdapterVersion) -> AbstractContextManager[AdapterVersion]: ...


def preparation(
    store: HoldingStore, base_fingerprint: str, base: str | Path
) -> Callable[[AdapterVersion], AbstractContextManager[AdapterVersion]]:
    """What AdapterLoader takes as `prepare`, for adapters of a store and the base served.

    Opening it raises BaseMismatchError for an adapter of another base, before its files are
    fetched; AdapterCorruptError for damaged files; StoreUnavailableError while they cannot be
    reached.
    """

    @contextmanager
    def prepare(version: AdapterVersion) -> Iterator[AdapterVersion]:
        version.require_base(base_fingerprint, base)
        with store.hold(version) as held:
            yield held

    return prepare
