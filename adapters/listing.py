"""What a store holds, told from folder names alone, and the messages for what it does not hold."""

import difflib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters.reference import is_name, is_version, shown, version_number
from adapters.version import AdapterVersion
from propulsion.errors import AdapterNotFoundError, PropulsionError

_LISTED_IN_ERRORS = 10
_SEARCHED_FOR_MATCHES = 1000


def list_names(store: Path) -> list[str]:
    """The names in a store, sorted, among them those whose first publish has not finished.

    Raises:
        PropulsionError: the folder cannot be read.
    """
    return sorted(filter(is_name, _subfolders(store)))


def list_versions(store: Path, name: str) -> list[AdapterVersion]:
    """The versions of a valid name, by number; none if the store does not hold the name.

    Raises:
        PropulsionError: the folder cannot be read.
    """
    folder = store / name
    if not _is_folder(folder):
        return []
    versions = sorted(filter(is_version, _subfolders(folder)), key=version_number)
    return [AdapterVersion(name, version, folder / version) for version in versions]


def existing_versions(store: Path, name: str) -> dict[str, AdapterVersion]:
    """The versions of a name, whatever the text given for it; never empty.

    Raises:
        AdapterNotFoundError: the store holds no such name.
        PropulsionError: the folder cannot be read.
    """
    versions = list_versions(store, name) if is_name(name) else []
    if not versions:
        raise AdapterNotFoundError(_no_name(store, name))
    return {version.version: version for version in versions}


def no_selector(name: str, selector: str, known: Sequence[str], aliases: Mapping[str, str]) -> str:
    """The message for a version or alias that an existing name does not have."""
    if selector in aliases:
        return (
            f"Alias {selector} of {name} means {aliases[selector]}, which is not in the store. "
            f"Versions: {_abridged(known)}."
        )
    kind = "version" if is_version(selector) else "alias"
    known = [*aliases, *known]
    return (
        f"Adapter {name} has no {kind} {selector}.{_close_matches(selector, known)} It has: "
        f"{_abridged(known)}."
    )


def _no_name(store: Path, name: str) -> str:
    # The name itself is there without a version if its first publish failed.
    known = [other for other in list_names(store) if other != name]
    if not known:
        return f"No adapter {shown(name)}: the store {store} is empty."
    return (
        f"No adapter {shown(name)} in {store}.{_close_matches(name, known)} It holds: "
        f"{_abridged(known)}."
    )


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise PropulsionError(f"Cannot read the adapter store: {error}.") from error


def _subfolders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PropulsionError(f"Cannot read the adapter store: {error}.") from error


def _close_matches(wanted: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(wanted, known[:_SEARCHED_FOR_MATCHES])
    return f" Did you mean {' or '.join(matches)}?" if matches else ""


def _abridged(known: Sequence[str]) -> str:
    listed = ", ".join(known[:_LISTED_IN_ERRORS])
    more = len(known) - _LISTED_IN_ERRORS
    return listed if more <= 0 else f"{listed} and {more} more"
