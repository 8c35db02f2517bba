"""What the store needs of a place that keeps adapters."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from adapters.version import AdapterVersion


@dataclass(frozen=True)
class Document:
    """`aliases.json` or `splits.json` of one adapter, as it was read.

    Attributes:
        data: the content; None if there is no file.
        tag: what `replace_document` compares, where the backend can.
    """

    data: bytes | None
    tag: str | None = None


@dataclass(frozen=True)
class Leftover:
    """What an interrupted publish or removal left behind; `key` is for the backend alone."""

    where: str
    bytes: int
    key: str


class Backend(Protocol):
    """One place with the store's layout. Names and versions given to it are well formed.

    Every method raises StoreUnavailableError if the place cannot be reached or read now.

    Attributes:
        location: path or URL, without credentials.
        folder: the folder, if it is a local one.
    """

    location: str
    folder: Path | None

    def where(self, *parts: str) -> str:
        """Path or URL of something in the store, for messages."""

    def names(self) -> list[str]:
        """Names, sorted, among them such as have no version yet."""

    def versions(self, name: str) -> list[str]:
        """The published versions of a name, by number; none if there is no such name."""

    def catalog(self) -> dict[str, list[str]]:
        """`versions` of every name that has one, by name."""

    def has_version(self, name: str, version: str) -> bool:
        """Whether a version is published."""

    def version(self, name: str, version: str) -> AdapterVersion:
        """The version as a value; nothing is read."""

    def hold(self, version: AdapterVersion) -> AbstractContextManager[None]:
        """Have the files at `version.path`, and keep them there until the context is left.

        Raises AdapterNotFoundError if the version is gone, AdapterCorruptError if a file is not
        what the manifest says.
        """

    def discard(self, version: AdapterVersion) -> bool:
        """Drop a damaged copy, so that `hold` fetches a new one; False if there are no copies."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Keep others from changing the documents and removing versions, where it can be done.

        The name has a version. Raises OSError if the lock cannot be taken.
        """

    def read_document(self, name: str, file: str, *, fresh: bool) -> Document:
        """Read a document; unless `fresh`, as it was some seconds ago at most.

        Raises AdapterCorruptError if it cannot be read.
        """

    def replace_document(self, name: str, file: str, data: bytes, tag: str | None) -> bool:
        """Replace a document in one step; False if it is no longer the one with the tag.

        Raises OSError if it cannot be written; it is unchanged.
        """

    def publish(
        self, source: Path, name: str, *, aliases: Sequence[str], details: Mapping[str, Any]
    ) -> str:
        """Publish a copy of a valid adapter folder as the next version; return that version.

        Args:
            source: the folder.
            name: the adapter.
            aliases: moved to the new version, which ends their splits.
            details: manifest keys that do not follow from the files.

        Raises:
            AdapterCorruptError: the copy is not valid.
            ConfigError: the name is not the store's to use.
            pydantic.ValidationError: `details` do not fit the manifest.
            PropulsionError: the version is published, but its aliases could not be moved.
            OSError: it could not be written; nothing is published.
        """

    def remove(self, name: str, version: str) -> None:
        """Remove a version, which no longer exists from the first step on; raises OSError."""

    def leftovers(self, name: str, before: datetime) -> list[Leftover]:
        """What was left behind before a time, or by a process known to be dead."""

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove what `leftovers` listed, unless it is in use after all; raises OSError."""
