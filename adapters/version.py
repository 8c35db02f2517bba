"""One published version of an adapter."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adapters.manifest import MANIFEST_FILE, Manifest, load_manifest
from propulsion.errors import BaseMismatchError


@dataclass(frozen=True)
class AdapterVersion:
    """A version in a store; `path` is a PEFT folder that `PeftModel.from_pretrained` takes.

    Its manifest is read when first asked for, so that one damaged version spoils no listing.
    """

    name: str
    version: str
    path: Path

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
        """
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
