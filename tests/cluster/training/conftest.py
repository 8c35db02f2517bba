from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.training.ray_cluster import RayCluster
from tests.trainer.runs import save_tiny_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With heads of 32, as vLLM wants them.
    return save_tiny_base(tmp_path_factory.mktemp("base"), hidden_size=64)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A head and two nodes of one CPU, for all tests; those that lose a part of it mend it."""
    cluster = RayCluster(1, 1)
    yield cluster
    cluster.stop()
