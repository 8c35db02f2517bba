from pathlib import Path

import pytest

from tests.serving.registry.stores import LeavableStore


@pytest.fixture
def store(tmp_path: Path) -> LeavableStore:
    return LeavableStore(tmp_path / "store")
