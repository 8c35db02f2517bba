"""Copies a base model from a bucket: `python -m cluster.deploy.fetch_base URL FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from adapters.backends.filesystem import open_filesystem, reaching
from propulsion.errors import ConfigError, PropulsionError, StoreUnavailableError


def fetch_base(url: str, folder: Path) -> None:
    """Copy a model folder from any URL that fsspec reads.

    Args:
        url: of the folder, as s3://bucket/prefix.
        folder: to copy to; made if it is missing.

    Raises:
        ConfigError: there is no model folder at the URL, or nothing can read such URLs.
        PropulsionError: it cannot be copied.
    """
    files, path = open_filesystem(url)
    try:
        with reaching(url):
            if not files.exists(f"{path}/config.json"):
                raise ConfigError(f"{url}: no model folder (it has no config.json)")
            folder.mkdir(parents=True, exist_ok=True)
            files.get(f"{path}/", f"{folder}/", recursive=True)
    except (StoreUnavailableError, OSError) as error:
        cause = error.__cause__ or error
        raise PropulsionError(f"{url} cannot be copied to {folder}: {cause}") from error


def main() -> None:
    """Copy what the command line names; a failure is told in one line, with exit code 2."""
    url, folder = sys.argv[1:]
    try:
        fetch_base(url, Path(folder))
    except PropulsionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
