"""Garbage collection: versions that nothing names any more, and what interrupted work left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adapters.backends.interface import Backend
from adapters.documents import ALIASES_FILE, SPLITS_FILE, parse_aliases, parse_splits
from adapters.version import AdapterVersion
from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    ConfigError,
    PropulsionError,
)


@dataclass(frozen=True)
class Removed:
    """What was, or would be, removed: a version, by reference, or a leftover, by its place."""

    what: str
    bytes: int
    is_version: bool


@dataclass(frozen=True)
class GcReport:
    """What a garbage collection removed, or would remove."""

    removed: tuple[Removed, ...]
    dry_run: bool

    @property
    def num_bytes(self) -> int:
        """Size of all that was removed."""
        return sum(removed.bytes for removed in self.removed)


def collect(
    backend: Backend,
    *,
    keep_last: int,
    min_age: timedelta,
    dry_run: bool,
    names: Sequence[str] | None,
) -> GcReport:
    """Collect in a backend; arguments, result and errors are those of `AdapterStore.gc`."""
    if keep_last < 1:
        # The number of a name's newest version would be given again.
        raise ConfigError(f"keep_last is {keep_last}: the newest version of a name stays; give 1.")
    if min_age < timedelta():
        raise ConfigError(f"min_age is {min_age}: give a time of 0 or more.")
    before = datetime.now(UTC) - min_age
    removed = [
        found
        for name in (backend.names() if names is None else names)
        for found in _collect_name(backend, name, keep_last, before, dry_run)
    ]
    return GcReport(tuple(removed), dry_run)


def _collect_name(
    backend: Backend, name: str, keep_last: int, before: datetime, dry_run: bool
) -> Iterator[Removed]:
    try:
        with backend.exclusive(name):
            for version in _unused(backend, name, keep_last, before):
                num_bytes = version.manifest.num_bytes
                if not dry_run:
                    backend.remove(name, version.version)
                yield Removed(version.reference, num_bytes, is_version=True)
            for leftover in backend.leftovers(name, before):
                if not dry_run:
                    backend.remove_leftover(leftover)
                yield Removed(leftover.where, leftover.bytes, is_version=False)
    except OSError as error:
        raise PropulsionError(
            f"Cannot remove from {backend.where(name)}: {error}. Check that the store is writable; "
            "what was removed before stays removed."
        ) from error


def _unused(
    backend: Backend, name: str, keep_last: int, before: datetime
) -> Iterator[AdapterVersion]:
    candidates = backend.versions(name)[:-keep_last]
    if not candidates:
        return
    named = _named_versions(backend, name)
    for text in candidates:
        version = backend.version(name, text)
        if text not in named and _is_older(version, before):
            yield version


def _named_versions(backend: Backend, name: str) -> set[str]:
    aliases = backend.read_document(name, ALIASES_FILE, fresh=True).data
    splits = backend.read_document(name, SPLITS_FILE, fresh=True).data
    return {
        *parse_aliases(aliases, backend.where(name, ALIASES_FILE)).values(),
        *(
            version
            for weights in parse_splits(splits, backend.where(name, SPLITS_FILE)).values()
            for version in weights
        ),
    }


def _is_older(version: AdapterVersion, before: datetime) -> bool:
    try:
        return version.manifest.created < before
    except (AdapterCorruptError, AdapterNotFoundError):
        # Its age is unknown, and somebody may want to repair it.
        return False
