"""One published version of an adapter."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from adapters.manifest import MANIFEST_FILE, Manifest, load_manifest
from propulsion.errors import BaseMismatchError


@dataclass(frozen=True)
class AdapterVersion:
    """A version in a store; `path` is a PEFT folder that `PeftModel.from_pretrained` takes.

    In a remote store `path` lies in the local cache and is there once the version was pulled. The
    manifest is read when first asked for, so that one damaged version spoils no listing.

    Attributes:
        name: of the adapter.
        version: v1, v2, ….
        path: the local folder.
        fetch_manifest: reads the manifest of a remote version; None reads it from `path`.
    """

    name: str
    version: str
    path: Path
    fetch_manifest: Callable[[], Manifest] | None = field(default=None, compare=False, repr=False)

    @property
    def reference(self) -> str:
        """`name@version`, which means the same files for ever."""
        return f"{self.name}@{self.version}"

    def __str__(self) -> str:
        return self.reference

    @cached_property
    def manifest(self) -> Manifest:
        """What `manifest.json` says.

        Raises:
            AdapterCorruptError: it is missing or malformed.
            AdapterNotFoundError: the version has gone from a remote store.
            StoreUnavailableError: a remote store cannot be reached now.
        """
        if self.fetch_manifest is not None:
            return self.fetch_manifest()
        return load_manifest(self.path / MANIFEST_FILE, name=self.name, version=self.version)

    def require_base(self, fingerprint: str, base_path: str | Path) -> None:
        """Refuse a base model that this adapter was not trained for.

        Args:
            fingerprint: what `base_fingerprint` says of the base at hand.
            base_path: where that base lies, for the message.

        Raises:
            BaseMismatchError: the fingerprints differ. An adapter without one fits any base.
            AdapterCorruptError: the manifest cannot be read.
        """
        trained_for = self.manifest.base_fingerprint
        if trained_for is None or trained_for == fingerprint:
            return
        raise BaseMismatchError(
            f"{self.reference} was trained for the base model "
            f"{self.manifest.base_model_name_or_path or '(unnamed)'} ({trained_for}), but the base "
            f"given is {base_path} ({fingerprint}). Give the base it was trained for, or train "
            "the adapter on this one."
        )

    def __getstate__(self) -> dict[str, Any]:
        # Connections do not travel to other processes; the manifest does.
        if self.fetch_manifest is None:
            return dict(self.__dict__)
        return {**self.__dict__, "manifest": self.manifest, "fetch_manifest": None}
