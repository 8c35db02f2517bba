"""The messages for what a store does not hold."""

import difflib
from collections.abc import Mapping, Sequence

from adapters.reference import is_version, shown

_LISTED_IN_ERRORS = 10
_SEARCHED_FOR_MATCHES = 1000


def no_name(location: str, name: str, known: Sequence[str]) -> str:
    """The message for a name that the store does not hold; `known` are those it does."""
    # The name itself is there without a version if its first publish failed.
    known = [other for other in known if other != name]
    if not known:
        return f"No adapter {shown(name)}: the store {location} is empty."
    return (
        f"No adapter {shown(name)} in {location}.{_close_matches(name, known)} It holds: "
        f"{_abridged(known)}."
    )


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


def _close_matches(wanted: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(wanted, known[:_SEARCHED_FOR_MATCHES])
    return f" Did you mean {' or '.join(matches)}?" if matches else ""


def _abridged(known: Sequence[str]) -> str:
    listed = ", ".join(known[:_LISTED_IN_ERRORS])
    more = len(known) - _LISTED_IN_ERRORS
    return listed if more <= 0 else f"{listed} and {more} more"
