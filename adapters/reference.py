"""Names in the store, and references to them: `name`, `name@version`, `name@alias`.

Every path inside a store is made of parts that passed this module, so none can leave it.
"""

import re
from dataclasses import dataclass

from propulsion.errors import ConfigError

LATEST = "latest"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"v[1-9][0-9]{0,8}")
_LOOKS_LIKE_VERSION = re.compile(r"[vV][0-9]+")
_RULE = "1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
_SHOWN = 80


@dataclass(frozen=True)
class Reference:
    """One parsed reference; `selector` is a version (`v3`) or an alias (`prod`)."""

    name: str
    selector: str = LATEST

    @property
    def is_version(self) -> bool:
        """Whether the selector names a version rather than an alias."""
        return is_version(self.selector)

    def __str__(self) -> str:
        return f"{self.name}@{self.selector}"


def parse_reference(text: str) -> Reference:
    """Split `name`, `name@version` or `name@alias`; a bare name means its alias `latest`.

    Raises:
        ConfigError: the text is none of these.
    """
    name, separator, selector = text.partition("@")
    check_name(name)
    if not separator:
        return Reference(name)
    if not is_version(selector):
        check_alias(selector)
    return Reference(name, selector)


def is_name(text: str) -> bool:
    """Whether the text may name an adapter."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether the text is a version: `v1`, `v2`, … (up to nine digits)."""
    return _VERSION.fullmatch(text) is not None


def is_alias(text: str) -> bool:
    """Whether the text may be an alias: a name that cannot be taken for a version."""
    return is_name(text) and _LOOKS_LIKE_VERSION.fullmatch(text) is None


def version_number(version: str) -> int:
    """The number in a version, by which versions are ordered."""
    return int(version[1:])


def check_name(name: str) -> str:
    """Return the adapter name.

    Raises:
        ConfigError: it may not name an adapter.
    """
    if not is_name(name):
        raise ConfigError(f"{shown(name)} cannot name an adapter: use {_RULE}.")
    return name


def check_version(version: str) -> str:
    """Return the version.

    Raises:
        ConfigError: it is not `v1`, `v2`, ….
    """
    if not is_version(version):
        raise ConfigError(f"{shown(version)} is not a version: versions are v1, v2, ….")
    return version


def check_alias(alias: str) -> str:
    """Return the alias.

    Raises:
        ConfigError: it may not be an alias.
    """
    if not is_alias(alias):
        raise ConfigError(
            f"{shown(alias)} cannot be an alias or version: versions are v1, v2, …; an alias is "
            f"{_RULE}, and does not look like a version."
        )
    return alias


def shown(text: str) -> str:
    """The text quoted for a message: one line, and short however long a client's text is."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
