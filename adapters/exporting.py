"""A version out of a store, as a plain PEFT folder."""

from pathlib import Path
from typing import Literal, TypeAlias

from adapters.durable_files import copy_file
from adapters.folders import new_folder
from adapters.store import AdapterStore
from adapters.version import AdapterVersion
from propulsion.errors import ConfigError

Format: TypeAlias = Literal["stored", "propulsion", "ia3"]

_TYPES = {"propulsion": "PROPULSION", "ia3": "IA3"}


def export_version(
    store: AdapterStore, version: str | AdapterVersion, folder: Path, form: Format = "stored"
) -> AdapterVersion:
    """Verify a version and write it to a new folder that PEFT loads, without the manifest.

    Args:
        store: where the version is.
        version: reference or version.
        folder: must not exist, or be empty.
        form: "stored" copies the files; "propulsion" and "ia3" convert between these two where the
            version is of the other.

    Raises:
        AdapterNotFoundError: the store has no such version.
        AdapterCorruptError: it is damaged.
        ConfigError: the folder is not free, or the version cannot have this form.
        PropulsionError: the folder cannot be written.
    """
    with store.hold(version) as held:
        found = held.manifest.peft_type
        wanted = _TYPES.get(form, found)
        if wanted == found:
            with new_folder(folder) as staging:
                for file in held.manifest.files:
                    copy_file(held.path / file, staging / file)
        elif {wanted, found} != {*_TYPES.values()}:
            raise ConfigError(
                f"{held.reference} is of type {found}, which cannot be written as {wanted}; leave "
                "the format out to export it as it is."
            )
        elif wanted == "IA3":
            from propulsion.interchange import export_ia3

            export_ia3(held.path, folder)
        else:
            from propulsion.interchange import import_ia3

            import_ia3(held.path, folder)
        return held
