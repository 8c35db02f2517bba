"""`aliases.json` and `splits.json`: what the moving names of one adapter mean."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from adapters.manifest import first_problem
from adapters.reference import check_version, is_alias, is_version, shown, version_number
from propulsion.errors import AdapterCorruptError, ConfigError

ALIASES_FILE = "aliases.json"
SPLITS_FILE = "splits.json"

Aliases: TypeAlias = dict[str, str]
Splits: TypeAlias = dict[str, dict[str, float]]

_ALIASES = TypeAdapter(Aliases)
_SPLITS = TypeAdapter(Splits)


def parse_aliases(data: bytes | None, where: str) -> Aliases:
    """The aliases in a file, alias to version; none if there is no file.

    Raises:
        AdapterCorruptError: the file, called `where` in the message, is malformed.
    """
    aliases = _parse(_ALIASES, data, where, "aliases")
    for alias, version in aliases.items():
        if not is_alias(alias) or not is_version(version):
            raise _malformed(where, f"{alias!r}: {version!r} is no alias", "aliases")
    return dict(sorted(aliases.items()))


def parse_splits(data: bytes | None, where: str) -> Splits:
    """The splits in a file, alias to the weights of versions; none if there is no file.

    Raises:
        AdapterCorruptError: the file, called `where` in the message, is malformed.
    """
    splits = _parse(_SPLITS, data, where, "splits")
    for alias, weights in splits.items():
        if not is_alias(alias) or not weights or not all(map(is_version, weights)):
            raise _malformed(where, f"{alias!r} is no split of an alias", "splits")
        if not all(0 < weight <= 1 for weight in weights.values()):
            raise _malformed(where, f"{alias!r} has a weight outside of (0, 1]", "splits")
    return dict(sorted(splits.items()))


def dump_document(value: Mapping[str, Any]) -> bytes:
    """Aliases or splits as their file holds them."""
    return TypeAdapter(dict[str, Any]).dump_json(dict(sorted(value.items())), indent=2) + b"\n"


def moved(aliases: Mapping[str, str], moving: Mapping[str, str]) -> Aliases:
    """The aliases after a publish moved some, but none back from a version published later."""
    later = {
        alias
        for alias, version in moving.items()
        if alias in aliases and version_number(aliases[alias]) > version_number(version)
    }
    return {**aliases, **{a: version for a, version in moving.items() if a not in later}}


def normalized(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of a split divided by their sum, by version number.

    Raises:
        ConfigError: there are none, a key is no version, or a weight is not positive and finite.
    """
    if not weights:
        raise ConfigError("a split needs a weight for at least one version, as in v1=0.9 v2=0.1.")
    for version, weight in weights.items():
        check_version(version)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"the weight of {version} is {shown(repr(weight))}: give a number.")
        if not math.isfinite(weight) or weight <= 0:
            raise ConfigError(
                f"the weight of {version} is {weight}: weights are finite and above 0; leave a "
                "version out to give it no traffic."
            )
    total, shares = sum(weights.values()), dict(weights)
    if math.isinf(total):
        largest = max(weights.values())
        shares = {version: weight / largest for version, weight in weights.items()}
        total = sum(shares.values())
    ordered = sorted(shares, key=version_number)
    for version in ordered:
        if shares[version] / total == 0:
            raise ConfigError(f"the weight of {version} vanishes beside the others: leave it out.")
    return {version: shares[version] / total for version in ordered}


def _parse(form: TypeAdapter[Any], data: bytes | None, where: str, what: str) -> Any:
    if data is None:
        return {}
    try:
        return form.validate_json(data)
    except ValidationError as error:
        raise _malformed(where, first_problem(error), what) from error


def _malformed(where: str, why: str, what: str) -> AdapterCorruptError:
    return AdapterCorruptError(f"{where}: {why}; delete the file and set the {what} again.")
