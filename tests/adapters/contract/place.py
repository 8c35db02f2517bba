"""A place for a store, and its files behind the store's back."""

from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from adapters import AdapterStore


class Place:
    """Where a store is. Paths are relative to it."""

    def __init__(self, url: str, cache: Path):
        self.url = url
        self.cache = cache
        self._files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        self._root = root.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return self.url.startswith("file:")

    def open(self, **options: Any) -> AdapterStore:
        """A store of its own, as another process has it."""
        return AdapterStore(self.url, **{"cache": self.cache, "alias_ttl_seconds": 0.0, **options})

    def where(self, path: str) -> str:
        """How messages name a file."""
        return f"{self.url.removeprefix('file://')}/{path}"

    def paths(self, below: str = "") -> set[str]:
        """Every file that is not hidden."""
        start = f"{self._root}/{below}"
        found = {path.removeprefix(f"{self._root}/") for path in self._files.find(start)}
        return {path for path in found if "/." not in f"/{path}"}

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return self._files.cat_file(f"{self._root}/{path}")

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a file."""
        if self.is_local:
            Path(self._root, path).parent.mkdir(parents=True, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{path}", data)

    def delete(self, path: str) -> None:
        """Remove a file."""
        self._files.rm_file(f"{self._root}/{path}")
