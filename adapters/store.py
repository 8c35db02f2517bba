"""The adapter store: `<store>/<name>/<version>/`, `<name>/aliases.json`, `<name>/splits.json`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from adapters.backends.opening import open_backend
from adapters.collection import GcReport, collect
from adapters.documents import normalized
from adapters.editing import change_aliases, change_splits
from adapters.manifest import first_problem
from adapters.reading import StoreReader
from adapters.reference import LATEST, check_alias, check_name, shown
from adapters.validate import validate_folder
from adapters.version import AdapterVersion
from propulsion.errors import AdapterNotFoundError, ConfigError, PropulsionError


class AdapterStore(StoreReader):
    """Adapters in a local folder, an S3-compatible bucket or any file system of fsspec.

    Any number of processes and threads may publish and read at once. A place that holds nothing yet
    lists as empty. Every method raises StoreUnavailableError if the place cannot be reached or read
    now, of S3 within seconds.

    Args:
        location: path of a folder, which the first publish makes, or `file://`, `s3://bucket/prefix`
            or another URL of fsspec. S3 takes its endpoint and credentials from the usual AWS_*
            environment, AWS_ENDPOINT_URL included.
        cache: folder for the files of a remote store; by default one for its URL below
            $XDG_CACHE_HOME or ~/.cache. A local store has no cache.
        cache_bytes: size the cache is kept to by dropping what was used least recently; versions
            that are held stay. None does not limit it.
        alias_ttl_seconds: how old what a remote store says may be: aliases, splits, whether a
            version that was seen still exists. Own changes are seen at once.

    Raises:
        ConfigError: the location is malformed, or its fsspec driver is not installed.

    Attributes:
        location: path or URL, without credentials.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        alias_ttl_seconds: float = 5.0,
    ) -> None:
        super().__init__(
            open_backend(
                location, cache=cache, cache_bytes=cache_bytes, alias_ttl_seconds=alias_ttl_seconds
            )
        )

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
            aliases: moved to the new version, which ends their splits; of two concurrent publishers
                the later version gets them.

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
            version = self._backend.publish(source, name, aliases=aliases, details=details)
        except ValidationError as error:
            raise ConfigError(f"Cannot publish {name}: {first_problem(error)}.") from error
        except OSError as error:
            raise PropulsionError(
                f"Cannot publish {source} to {self._backend.where(name)}: {error}. Nothing was "
                "published; check that the store is writable and its disk has room, then publish "
                "again."
            ) from error
        return self._backend.version(name, version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version, in one step for every reader; this is how to roll back.

        The alias's split, if there is one, ends in the same step.

        Raises:
            ConfigError: the alias or version is malformed.
            AdapterNotFoundError: the store has no such name or version.
            AdapterCorruptError: the present aliases.json or splits.json is malformed.
            PropulsionError: the store cannot be written; the alias is unchanged.
        """
        check_alias(alias)
        self._require(name, [version])
        with self._editing(name, f"set alias {alias}"):
            change_aliases(self._backend, name, lambda aliases: {**aliases, alias: version})
            change_splits(self._backend, name, _Removal(alias))

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias and its split.

        Raises:
            AdapterNotFoundError: the name has neither.
            AdapterCorruptError, PropulsionError: as `set_alias`.
        """
        self._existing(name)
        drop = _Removal(alias)
        with self._editing(name, f"delete alias {alias}"):
            change_aliases(self._backend, name, drop)
            change_splits(self._backend, name, drop)
        if not drop.found:
            raise AdapterNotFoundError(f"Adapter {name} has no alias {shown(alias)}.")

    def set_split(self, name: str, alias: str, weights: Mapping[str, float]) -> None:
        """Split an alias between versions, which a server draws from for each request.

        Args:
            name: the adapter.
            alias: need not be set; `resolve` keeps following it and ignores the split.
            weights: version to a weight above 0; kept divided by their sum.

        Raises:
            ConfigError: the alias, a version or a weight is malformed.
            AdapterNotFoundError: the store has no such name or version.
            AdapterCorruptError: the present splits.json is malformed.
            PropulsionError: the store cannot be written; the split is unchanged.
        """
        check_alias(alias)
        shares = normalized(weights)
        self._require(name, [*shares])
        with self._editing(name, f"split alias {alias}"):
            change_splits(self._backend, name, lambda splits: {**splits, alias: shares})

    def delete_split(self, name: str, alias: str) -> None:
        """End the split of an alias, which then means what the alias says.

        Raises:
            AdapterNotFoundError: there is none.
            AdapterCorruptError, PropulsionError: as `set_split`.
        """
        self._existing(name)
        drop = _Removal(alias)
        with self._editing(name, f"end the split of {alias}"):
            change_splits(self._backend, name, drop)
        if not drop.found:
            raise AdapterNotFoundError(f"Alias {shown(alias)} of {name} is not split.")

    def gc(
        self,
        *,
        keep_last: int = 10,
        min_age: timedelta = timedelta(days=1),
        dry_run: bool = False,
        names: Sequence[str] | None = None,
    ) -> GcReport:
        """Remove old versions that no alias or split names, and what interrupted publishes left.

        That another version names one as its parent does not keep it: lineage is for reading.

        Args:
            keep_last: newest versions of each name that stay in any case, 1 or more.
            min_age: how old a version has to be.
            dry_run: remove nothing, say what would be.
            names: look at these adapters only.

        Returns:
            What was, or would be, removed. Versions with a damaged manifest stay.

        Raises:
            ConfigError: `keep_last` is below 1 or `min_age` is negative.
            AdapterNotFoundError: one of `names` is not in the store.
            AdapterCorruptError: the aliases or splits of a name cannot be read.
            PropulsionError: something cannot be removed.
        """
        for name in names or ():
            self._existing(name)
        return collect(
            self._backend, keep_last=keep_last, min_age=min_age, dry_run=dry_run, names=names
        )

    @contextmanager
    def _editing(self, name: str, what: str) -> Iterator[None]:
        try:
            with self._backend.exclusive(name):
                yield
        except OSError as error:
            raise PropulsionError(
                f"Cannot {what} of {name} in {self.location}: {error}. Check that the store is "
                "writable and its disk has room."
            ) from error


class _Removal:
    """A change that takes a key out, and tells whether it ever was there."""

    def __init__(self, key: str) -> None:
        self.found = False
        self._key = key

    def __call__(self, present: Mapping[str, Any]) -> dict[str, Any]:
        self.found |= self._key in present
        return {key: value for key, value in present.items() if key != self._key}


def _as_json(what: str, value: Mapping[str, Any] | None) -> Any:
    try:
        return to_jsonable_python(value or {})
    except (PydanticSerializationError, ValueError) as error:
        raise ConfigError(f"{what} cannot be written as JSON: {error}.") from error
