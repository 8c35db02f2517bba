"""Changing aliases and splits so that nobody's change is lost."""

import random
import time
from collections.abc import Callable
from typing import Any

from adapters.backends.interface import Backend
from adapters.documents import (
    ALIASES_FILE,
    SPLITS_FILE,
    Aliases,
    Splits,
    dump_document,
    parse_aliases,
    parse_splits,
)
from propulsion.errors import StoreUnavailableError

_TRIES = 50
_MAX_WAIT_SECONDS = 0.5


def change_aliases(backend: Backend, name: str, change: Callable[[Aliases], Aliases]) -> None:
    """Replace the aliases of an adapter by what `change`, called once or more, makes of them.

    Call it under `backend.exclusive`, where the backend's own changes have not got it already.

    Raises:
        AdapterCorruptError: the present file is malformed.
        OSError: it cannot be written; it is unchanged.
        StoreUnavailableError: the store is away, or others change the file all the time.
    """
    _change(backend, name, ALIASES_FILE, parse_aliases, change)


def change_splits(backend: Backend, name: str, change: Callable[[Splits], Splits]) -> None:
    """The same for the splits of an adapter."""
    _change(backend, name, SPLITS_FILE, parse_splits, change)


def _change(
    backend: Backend,
    name: str,
    file: str,
    parse: Callable[[bytes | None, str], Any],
    change: Callable[[Any], Any],
) -> None:
    where = backend.where(name, file)
    for attempt in range(_TRIES):
        document = backend.read_document(name, file, fresh=True)
        present = parse(document.data, where)
        wanted = change(present)
        if wanted == present:
            return
        if backend.replace_document(name, file, dump_document(wanted), document.tag):
            return
        time.sleep(random.uniform(0, min(0.01 * 2**attempt, _MAX_WAIT_SECONDS)))
    raise StoreUnavailableError(
        f"{where} was changed by others at every one of {_TRIES} tries; try again later."
    )
