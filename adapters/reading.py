"""What can be asked of an adapter store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from adapters.backends.interface import Backend
from adapters.documents import (
    ALIASES_FILE,
    SPLITS_FILE,
    Aliases,
    Splits,
    parse_aliases,
    parse_splits,
)
from adapters.not_found import no_name, no_selector
from adapters.reference import Reference, check_version, is_name, parse_reference, shown
from adapters.verification import verify_version
from adapters.version import AdapterVersion
from propulsion.errors import AdapterCorruptError, AdapterNotFoundError, ConfigError

# Inside the class `list` is its method.
Names: TypeAlias = list[str]
Versions: TypeAlias = list[AdapterVersion]


class StoreReader:
    """The reading half of `AdapterStore`.

    Args:
        backend: where the adapters are.

    Attributes:
        location: path or URL, without credentials.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.location = backend.location

    @property
    def path(self) -> Path:
        """The folder of a local store; raises ConfigError for a remote one."""
        if self._backend.folder is None:
            raise ConfigError(f"The adapter store {self.location} is not a local folder.")
        return self._backend.folder

    def list(self) -> Versions:
        """Every version of every name, by name and number; reads names only."""
        return [
            self._backend.version(name, version)
            for name, versions in sorted(self._backend.catalog().items())
            for version in versions
        ]

    def names(self) -> Names:
        """The names that have a version, sorted."""
        return sorted(self._backend.catalog())

    def versions(self, name: str) -> Versions:
        """The versions of one name, by number.

        Raises:
            AdapterNotFoundError: the store has no such name.
        """
        return [self._backend.version(name, version) for version in self._existing(name)]

    def aliases(self, name: str) -> Aliases:
        """The aliases of one name, alias to version.

        Raises:
            AdapterNotFoundError: the store has no such name.
            AdapterCorruptError: its aliases.json is malformed.
        """
        aliases = self._aliases(name) if is_name(name) else {}
        if not aliases:
            self._existing(name)
        return aliases

    def splits(self, name: str) -> Splits:
        """The weighted splits of one name: alias to the weights, of sum 1, of versions.

        Raises:
            AdapterNotFoundError: the store has no such name.
            AdapterCorruptError: its splits.json is malformed.
        """
        if not is_name(name):
            raise self._no_name(name)
        document = self._backend.read_document(name, SPLITS_FILE, fresh=False)
        splits = parse_splits(document.data, self._backend.where(name, SPLITS_FILE))
        # A name with aliases has a version, which spares most names the listing.
        if not splits and not self._aliases(name):
            self._existing(name)
        return splits

    def resolve(self, reference: str) -> AdapterVersion:
        """The version that `name`, `name@version` or `name@alias` means now.

        A bare name means its alias `latest`; splits are ignored, so that a reference has one
        meaning. The manifest is read, the other files are not: see `pull` and `verify`.

        Raises:
            AdapterNotFoundError: there is none; the message lists what there is.
            AdapterCorruptError: its manifest or aliases.json is missing or malformed.
        """
        try:
            wanted = parse_reference(reference)
        except ConfigError as error:
            raise AdapterNotFoundError(f"No adapter {shown(reference)}: {error}") from error
        aliases = {} if wanted.is_version else self._aliases(wanted.name)
        version = wanted.selector if wanted.is_version else aliases.get(wanted.selector)
        if version is None or not self._backend.has_version(wanted.name, version):
            raise self._no_version(wanted, aliases)
        found = self._backend.version(wanted.name, version)
        _ = found.manifest
        return found

    def pull(self, version: str | AdapterVersion) -> AdapterVersion:
        """Have a version's files at its `path`.

        A remote store's are copied into the cache, unless they are there, with their checksums
        compared on the way; where they could be evicted, use `hold`. A local store's are verified.

        Raises:
            AdapterNotFoundError: the store has no such version.
            AdapterCorruptError: a file is missing, changed or malformed; the message names it.
            PropulsionError: the cache cannot be written.
        """
        found = self._given(version)
        if self._backend.folder is not None:
            return verify_version(found)
        with self._backend.hold(found):
            return found

    @contextmanager
    def hold(self, version: str | AdapterVersion) -> Iterator[AdapterVersion]:
        """Pull and verify a version, and keep its files where they are until the context is left.

        Raises:
            AdapterNotFoundError: the store has no such version.
            AdapterCorruptError: a file is missing, unlisted, changed or malformed.
            PropulsionError: the cache cannot be written.
        """
        found = self._given(version)
        with self._backend.hold(found):
            try:
                verify_version(found)
            except AdapterCorruptError:
                if not self._backend.discard(found):
                    raise
            else:
                yield found
                return
        # The cached copy was damaged; what is fetched anew is as good as the store.
        with self._backend.hold(found):
            verify_version(found)
            yield found

    def verify(self, version: str | AdapterVersion) -> AdapterVersion:
        """Check every file of a version, given by reference or itself, against its manifest.

        Reads all its bytes: checksums, then configuration, tensor names, shapes and values. A
        remote version is pulled; a damaged copy in the cache is fetched again.

        Raises:
            AdapterNotFoundError: the store has no such version.
            AdapterCorruptError: a file is missing, unlisted, changed or malformed.
            PropulsionError: the cache cannot be written.
        """
        with self.hold(version) as held:
            return held

    def where(self, version: AdapterVersion) -> str:
        """Path or URL of a version in the store itself, rather than in the cache."""
        return self._backend.where(version.name, version.version)

    def _given(self, version: str | AdapterVersion) -> AdapterVersion:
        return self.resolve(version) if isinstance(version, str) else version

    def _aliases(self, name: str) -> Aliases:
        document = self._backend.read_document(name, ALIASES_FILE, fresh=False)
        return parse_aliases(document.data, self._backend.where(name, ALIASES_FILE))

    def _existing(self, name: str) -> Names:
        versions = self._backend.versions(name) if is_name(name) else []
        if not versions:
            raise self._no_name(name)
        return versions

    def _require(self, name: str, versions: Sequence[str]) -> None:
        for version in versions:
            check_version(version)
        for version in versions:
            if not is_name(name) or not self._backend.has_version(name, version):
                raise self._no_version(Reference(name, version), {})

    def _no_name(self, name: str) -> AdapterNotFoundError:
        return AdapterNotFoundError(no_name(self.location, name, self._backend.names()))

    def _no_version(self, wanted: Reference, aliases: Aliases) -> AdapterNotFoundError:
        try:
            versions = self._existing(wanted.name)
        except AdapterNotFoundError as error:
            return error
        known = aliases or ({} if wanted.is_version else self._aliases(wanted.name))
        return AdapterNotFoundError(no_selector(wanted.name, wanted.selector, versions, known))
