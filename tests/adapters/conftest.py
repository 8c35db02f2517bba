"""A store, and an adapter folder to publish into it."""

from pathlib import Path

import pytest

from adapters import AdapterStore
from tests.adapters.folders import write_adapter


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """A store whose folder does not exist yet."""
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A valid Propulsion adapter folder."""
    return write_adapter(tmp_path / "adapter")
