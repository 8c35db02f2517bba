"""New folders that appear whole and synced to disk, or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.durable_files import sync_folder
from propulsion.errors import ConfigError, PropulsionError


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A hidden folder to fill, which becomes `destination` when the context is left in peace.

    Raises:
        ConfigError: the destination exists and is not an empty folder.
        PropulsionError: it cannot be written, or the body raised OSError.
    """
    target = destination.resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(
            f"{destination} exists and is not an empty folder; nothing is overwritten, so choose "
            "another destination or remove it."
        )
    staging = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
    try:
        staging.mkdir(parents=True)
        yield staging
        os.rename(staging, target)
        sync_folder(target.parent)
    except OSError as error:
        raise PropulsionError(
            f"{destination} cannot be written: {error}. Check that it is writable and its disk has "
            "room."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
