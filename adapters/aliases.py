"""`aliases.json`: which version of one adapter `latest`, `prod`, … mean."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from adapters.durable_files import open_regular, sync_folder, write_file
from adapters.manifest import first_problem
from adapters.reference import is_alias, is_version
from propulsion.errors import AdapterCorruptError

ALIASES_FILE = "aliases.json"

_PREPARED_FILE = ".aliases.json.new"
_FORMAT = TypeAdapter(dict[str, str])
_REPAIR = "delete the file and set the aliases again."


def read_aliases(name_folder: Path) -> dict[str, str]:
    """The aliases of one adapter, alias to version; none if nobody has set one.

    Raises:
        AdapterCorruptError: the file is malformed or cannot be read.
    """
    path = name_folder / ALIASES_FILE
    try:
        with open_regular(path) as file:
            aliases = _FORMAT.validate_json(file.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AdapterCorruptError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise AdapterCorruptError(f"{path}: {first_problem(error)}; {_REPAIR}") from error
    for alias, version in aliases.items():
        if not is_alias(alias) or not is_version(version):
            raise AdapterCorruptError(f"{path}: {alias!r}: {version!r} is no alias; {_REPAIR}")
    return dict(sorted(aliases.items()))


@contextmanager
def prepared_aliases(name_folder: Path, aliases: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Write the next aliases beside the present ones; calling what is yielded puts them in force.

    Every reader sees the old or the new ones, whole. Not called, they are dropped. The caller holds
    the adapter's lock. Raises OSError where the folder cannot be written.
    """
    prepared = name_folder / _PREPARED_FILE

    def commit() -> None:
        os.replace(prepared, name_folder / ALIASES_FILE)
        sync_folder(name_folder)

    try:
        write_file(prepared, _FORMAT.dump_json(dict(aliases), indent=2) + b"\n")
        yield commit
    finally:
        prepared.unlink(missing_ok=True)
