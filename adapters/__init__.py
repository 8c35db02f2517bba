"""The adapter store: publish, list, resolve and verify adapters in a folder, bucket or URL."""

from adapters.fingerprint import base_fingerprint
from adapters.manifest import Manifest
from adapters.store import AdapterStore
from adapters.version import AdapterVersion

__all__ = ["AdapterStore", "AdapterVersion", "Manifest", "base_fingerprint"]
