"""The adapter store: `<path>/<name>/<version>/` and `<path>/<name>/aliases.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from adapters.aliases import prepared_aliases, read_aliases
from adapters.durable_files import locked, sync_folder
from adapters.listing import existing_versions, list_names, list_versions, no_selector
from adapters.manifest import first_problem
from adapters.publishing import LOCK_FILE, publish_folder
from adapters.reference import (
    LATEST,
    check_alias,
    check_name,
    check_version,
    parse_reference,
    shown,
)
from adapters.validate import validate_folder
from adapters.verification import verify_version
from adapters.version import AdapterVersion
from propulsion.errors import AdapterNotFoundError, ConfigError, PropulsionError

# Inside the class `list` is its method.
Names: TypeAlias = list[str]
Versions: TypeAlias = list[AdapterVersion]


class AdapterStore:
    """Adapters in a local folder, made by the first publish; a missing one lists as empty.

    Any number of processes may publish and read at once. Symbolic links inside a store are not
    followed: what they name is not in it. Every method raises PropulsionError if the folder cannot
    be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def publish(
        self,
        folder: str | Path,
        name: str,
        *,
        base_fingerprint: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        training_config: Mapping[str, Any] | None = None,
        parent: str | None = None,
        aliases: Sequence[str] = (LATEST,),
    ) -> AdapterVersion:
        """Check a PEFT adapter folder and publish it as the next version of `name`.

        Args:
            folder: holds adapter_config.json and adapter_model.safetensors.
            name: the adapter's name.
            base_fingerprint: of the base it was trained on; without it, any base is accepted.
            metrics: evaluation results, JSON; NaN and infinity become null.
            training_config: the run's settings, JSON.
            parent: reference in this store to the version this one was trained on from; kept as
                `name@version`.
            aliases: moved to the new version in the same locked step, so that of two concurrent
                publishers the later version gets them.

        Raises:
            ConfigError: a name, alias, parent or manifest value is malformed.
            AdapterCorruptError: the folder does not hold a valid adapter.
            AdapterNotFoundError: `parent` is not in the store.
            PropulsionError: the store cannot be written; the message says what is published.
        """
        check_name(name)
        if isinstance(aliases, str):
            raise ConfigError(f"aliases is the string {aliases!r}: give a list of aliases.")
        for alias in aliases:
            check_alias(alias)
        source = Path(folder)
        if not source.is_dir():
            raise ConfigError(f"{source} is not a folder: give the one PEFT saved the adapter in.")
        details = {
            "name": name,
            "base_fingerprint": base_fingerprint,
            "metrics": _as_json("metrics", metrics),
            "training_config": _as_json("training_config", training_config),
            "parent": None if parent is None else self.resolve(parent).reference,
        }
        try:
            # The copy is what counts and is checked again; this spares a bad folder the copying.
            validate_folder(source)
            made = self._make_folder(name)
            version = publish_folder(source, made, aliases=aliases, details=details)
        except ValidationError as error:
            raise ConfigError(f"Cannot publish {name}: {first_problem(error)}.") from error
        except OSError as error:
            raise PropulsionError(
                f"Cannot publish {source} to {self.path / name}: {error}. Nothing was published; "
                "check that the store is writable and its disk has room, then publish again."
            ) from error
        return AdapterVersion(name, version, made / version)

    def list(self) -> Versions:
        """Every version of every name, by name and number; reads folder names only."""
        return [
            version for name in list_names(self.path) for version in list_versions(self.path, name)
        ]

    def names(self) -> Names:
        """The names that have a version, sorted."""
        return [name for name in list_names(self.path) if list_versions(self.path, name)]

    def aliases(self, name: str) -> dict[str, str]:
        """The aliases of one name, alias to version.

        Raises:
            AdapterNotFoundError: the store has no such name.
            AdapterCorruptError: its aliases.json is malformed.
        """
        existing_versions(self.path, name)
        return read_aliases(self.path / name)

    def resolve(self, reference: str) -> AdapterVersion:
        """The version that `name`, `name@version` or `name@alias` means now.

        A bare name means its alias `latest`. The manifest is read, the other files are not: see
        `verify`.

        Raises:
            AdapterNotFoundError: there is none; the message lists what there is.
            AdapterCorruptError: its manifest or aliases.json is missing or malformed.
        """
        try:
            wanted = parse_reference(reference)
        except ConfigError as error:
            raise AdapterNotFoundError(f"No adapter {shown(reference)}: {error}") from error
        versions = existing_versions(self.path, wanted.name)
        aliases = {} if wanted.is_version else read_aliases(self.path / wanted.name)
        found = versions.get(aliases.get(wanted.selector, wanted.selector))
        if found is None:
            raise AdapterNotFoundError(
                no_selector(wanted.name, wanted.selector, list(versions), aliases)
            )
        _ = found.manifest
        return found

    def verify(self, version: str | AdapterVersion) -> AdapterVersion:
        """Check every file of a version, given by reference or itself, against its manifest.

        Reads all its bytes: checksums, then configuration, tensor names, shapes and values.

        Raises:
            AdapterNotFoundError: the store has no such version.
            AdapterCorruptError: a file is missing, unlisted, changed or malformed.
        """
        return verify_version(self.resolve(version) if isinstance(version, str) else version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version, in one step for every reader; this is how to roll back.

        Raises:
            ConfigError: the alias or version is malformed.
            AdapterNotFoundError: the store has no such name or version.
            AdapterCorruptError: the present aliases.json is malformed.
            PropulsionError: the store cannot be written; the alias is unchanged.
        """
        check_alias(alias)
        check_version(version)
        versions = existing_versions(self.path, name)
        if version not in versions:
            raise AdapterNotFoundError(no_selector(name, version, list(versions), {}))
        folder = self.path / name
        try:
            with locked(folder / LOCK_FILE):
                wanted = {**read_aliases(folder), alias: version}
                with prepared_aliases(folder, wanted) as commit:
                    commit()
        except OSError as error:
            raise PropulsionError(
                f"Cannot set alias {alias} of {name} in {self.path}: {error}. Check that the store "
                "is writable and its disk has room."
            ) from error

    def _make_folder(self, name: str) -> Path:
        folder = self.path / name
        if folder.is_symlink():
            raise ConfigError(f"{folder} is a symbolic link; a store holds its adapters itself.")
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.path)
        return folder


def _as_json(what: str, value: Mapping[str, Any] | None) -> Any:
    try:
        return to_jsonable_python(value or {})
    except (PydanticSerializationError, ValueError) as error:
        raise ConfigError(f"{what} cannot be written as JSON: {error}.") from error
